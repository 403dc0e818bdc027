import django.contrib.postgres.fields
from django.db import migrations, models

from systemtasks.postgres import RunPostgresSQL

# Rows of the current hour, which are nearly all that is written, only pass the conditions. The
# others are read again by nobody: what they add, or what they were, is noted for the statistics.
# The clock is asked after the row is written. See `systemtasks/storage/folding.py`.
#
# To delete a run takes nothing from the statistics, except where an end that was none is taken
# back: an orphaned run has succeeded, and its task's options do not keep it.
NOTE_CHANGES = """
CREATE FUNCTION systemtasks_note_change() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
BEGIN
    IF current_setting('systemtasks.moves_runs', true) = 'on' THEN
        RETURN NULL;  -- from one partition to another
    END IF;
    IF TG_OP <> 'INSERT' AND OLD.state NOT IN ('queued', 'running') THEN
        INSERT INTO systemtasks_statisticschange (sign, sort_timestamp, system_task_id, state,
            status, attempt, number, duration, wait, finish_timestamp)
        VALUES (-1, OLD.sort_timestamp, OLD.system_task_id, OLD.state, OLD.status, OLD.attempt,
            OLD.number, OLD.duration, OLD.wait, OLD.finish_timestamp);
    END IF;
    IF TG_OP <> 'DELETE' AND NEW.state NOT IN ('queued', 'running') THEN
        INSERT INTO systemtasks_statisticschange (sign, sort_timestamp, system_task_id, state,
            status, attempt, number, duration, wait, finish_timestamp)
        VALUES (1, NEW.sort_timestamp, NEW.system_task_id, NEW.state, NEW.status, NEW.attempt,
            NEW.number, NEW.duration, NEW.wait, NEW.finish_timestamp);
    END IF;
    RETURN NULL;
END$$;
CREATE TRIGGER systemtasks_note_inserted AFTER INSERT ON systemtasks_taskrun FOR EACH ROW
WHEN (NEW.state NOT IN ('queued', 'running')
    AND NEW.sort_timestamp < date_trunc('hour', clock_timestamp(), 'UTC'))
EXECUTE FUNCTION systemtasks_note_change();
CREATE TRIGGER systemtasks_note_updated AFTER UPDATE ON systemtasks_taskrun FOR EACH ROW
WHEN ((OLD.state NOT IN ('queued', 'running') OR NEW.state NOT IN ('queued', 'running'))
    AND least(OLD.sort_timestamp, NEW.sort_timestamp)
        < date_trunc('hour', clock_timestamp(), 'UTC')
    AND (OLD.sort_timestamp, OLD.system_task_id, OLD.state, OLD.status, OLD.attempt, OLD.number,
        OLD.duration, OLD.wait, OLD.finish_timestamp)
    IS DISTINCT FROM (NEW.sort_timestamp, NEW.system_task_id, NEW.state, NEW.status, NEW.attempt,
        NEW.number, NEW.duration, NEW.wait, NEW.finish_timestamp))
EXECUTE FUNCTION systemtasks_note_change();
CREATE TRIGGER systemtasks_note_deleted AFTER DELETE ON systemtasks_taskrun FOR EACH ROW
WHEN (OLD.state NOT IN ('queued', 'running') AND OLD.seen_timestamp IS NOT NULL
    AND coalesce(OLD.expires > clock_timestamp(), true)
    AND OLD.sort_timestamp < date_trunc('hour', clock_timestamp(), 'UTC'))
EXECUTE FUNCTION systemtasks_note_change();
"""
FORGET_CHANGES = """
DROP TRIGGER systemtasks_note_inserted ON systemtasks_taskrun;
DROP TRIGGER systemtasks_note_updated ON systemtasks_taskrun;
DROP TRIGGER systemtasks_note_deleted ON systemtasks_taskrun;
DROP FUNCTION systemtasks_note_change();
"""


class Migration(migrations.Migration):
    dependencies = [
        ("systemtasks", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="StatisticsChange",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                (
                    "sign",
                    models.SmallIntegerField(
                        help_text="1 for what the run is now, -1 for what it was"
                    ),
                ),
                ("sort_timestamp", models.DateTimeField()),
                ("system_task_id", models.UUIDField()),
                ("state", models.CharField(max_length=10)),
                ("status", models.CharField(max_length=10)),
                ("attempt", models.IntegerField()),
                ("number", models.IntegerField()),
                ("duration", models.FloatField(null=True)),
                ("wait", models.FloatField(null=True)),
                ("finish_timestamp", models.DateTimeField(null=True)),
            ],
            options={
                "default_permissions": (),
                "required_db_vendor": "postgresql",
            },
        ),
        migrations.CreateModel(
            name="StatisticsProgress",
            fields=[
                ("id", models.SmallIntegerField(default=1, primary_key=True, serialize=False)),
                (
                    "folded_until",
                    models.DateTimeField(help_text="Hours before are in the statistics", null=True),
                ),
                (
                    "due_until",
                    models.DateTimeField(
                        help_text="Hours before are to be counted next", null=True
                    ),
                ),
                (
                    "transaction",
                    models.BigIntegerField(
                        help_text="All transactions up to this one have to end before", null=True
                    ),
                ),
            ],
            options={
                "default_permissions": (),
                "required_db_vendor": "postgresql",
            },
        ),
        migrations.CreateModel(
            name="TaskStatistics",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "period",
                        "start",
                        "system_task",
                        "state",
                        "status",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "period",
                    models.CharField(
                        choices=[("hour", "Hour"), ("day", "Day"), ("month", "Month")], max_length=5
                    ),
                ),
                ("start", models.DateTimeField()),
                ("system_task", models.UUIDField()),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("queued", "Queued"),
                            ("running", "Running"),
                            ("success", "Success"),
                            ("failure", "Failure"),
                            ("retry", "Retry"),
                            ("revoked", "Revoked"),
                            ("rejected", "Rejected"),
                            ("lost", "Lost"),
                            ("ignored", "Ignored"),
                        ],
                        max_length=10,
                    ),
                ),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("unknown", "Unknown"),
                            ("successful", "Successful"),
                            ("warning", "Warning"),
                            ("error", "Error"),
                        ],
                        max_length=10,
                    ),
                ),
                ("runs", models.IntegerField()),
                ("retries", models.IntegerField(help_text="Runs that are a retry")),
                (
                    "further",
                    models.IntegerField(
                        help_text="Runs that are a further execution of their message"
                    ),
                ),
                (
                    "duration_sum",
                    models.BigIntegerField(help_text="Microseconds, which add up exactly"),
                ),
                ("duration_max", models.FloatField(help_text="Seconds", null=True)),
                (
                    "duration_buckets",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.SmallIntegerField(), default=list, size=None
                    ),
                ),
                (
                    "duration_counts",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.IntegerField(), default=list, size=None
                    ),
                ),
                ("wait_sum", models.BigIntegerField(help_text="Microseconds")),
                (
                    "wait_buckets",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.SmallIntegerField(), default=list, size=None
                    ),
                ),
                (
                    "wait_counts",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.IntegerField(), default=list, size=None
                    ),
                ),
                (
                    "last_finish",
                    models.DateTimeField(help_text="The end of the run that ended last", null=True),
                ),
            ],
            options={
                "verbose_name": "task statistics",
                "verbose_name_plural": "task statistics",
                "default_permissions": (),
                "required_db_vendor": "postgresql",
            },
        ),
        RunPostgresSQL(NOTE_CHANGES, FORGET_CHANGES),
    ]
