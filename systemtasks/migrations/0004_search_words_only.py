import django.contrib.postgres.indexes
from django.db import migrations, models

from systemtasks.postgres import RunPostgresSQL, TrigramSearch

# What people search for: no keys of the JSON, no log levels, no names of loggers. The cost is
# what it takes to unpack long messages, which the planner would not know: with it, a search that
# finds few rows uses the index.
CREATE = """
CREATE FUNCTION systemtasks_search_document(name text, uid text, description text, messages jsonb)
RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 10000 AS $$
    SELECT upper(name || E'\\n' || uid || E'\\n' || description || E'\\n' || coalesce((
        SELECT string_agg(found #>> '{}', E'\\n') FROM jsonb_path_query(
            messages, '$[*].attributes.**?(@.type() == "string" || @.type() == "number")'
        ) AS found
    ), '') || E'\\n' || coalesce((
        SELECT string_agg(found #>> '{}', E'\\n')
        FROM jsonb_path_query(messages, '$[*].event') AS found
    ), ''))
$$
"""


class Migration(migrations.Migration):
    dependencies = [
        ("systemtasks", "0003_notify_of_ended_runs"),
    ]

    operations = [
        TrigramSearch(),
        migrations.RemoveIndex(model_name="systemtask", name="systemtask_search"),
        RunPostgresSQL(
            CREATE, "DROP FUNCTION systemtasks_search_document(text, text, text, jsonb)"
        ),
        migrations.AddIndex(
            model_name="systemtask",
            index=django.contrib.postgres.indexes.GinIndex(
                django.contrib.postgres.indexes.OpClass(
                    models.Func(
                        models.F("name"),
                        models.F("uid"),
                        models.F("description"),
                        models.F("messages"),
                        function="systemtasks_search_document",
                        output_field=models.TextField(),
                    ),
                    name="gin_trgm_ops",
                ),
                name="systemtask_search",
            ),
        ),
        TrigramSearch(),
    ]
