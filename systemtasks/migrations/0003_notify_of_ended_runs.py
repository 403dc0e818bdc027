from django.db import migrations, models

from systemtasks.postgres import RunPostgresSQL

# Once a statement and without a payload: a batch of any size costs one notification, and whoever
# waits looks for itself. `UPDATE OF state` leaves out the renewal of leases.
NOTIFY = """
CREATE FUNCTION systemtasks_notify() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN NOTIFY systemtasks_taskrun; RETURN NULL; END$$;
CREATE TRIGGER systemtasks_notify AFTER INSERT OR UPDATE OF state ON systemtasks_taskrun
FOR EACH STATEMENT EXECUTE FUNCTION systemtasks_notify();
"""
QUIET = """
DROP TRIGGER systemtasks_notify ON systemtasks_taskrun;
DROP FUNCTION systemtasks_notify();
"""


class Migration(migrations.Migration):
    dependencies = [
        ("systemtasks", "0002_sender_and_lease"),
    ]

    operations = [
        RunPostgresSQL(NOTIFY, QUIET),
        migrations.AddIndex(
            model_name="taskrun",
            index=models.Index(
                condition=models.Q(("parent_id", ""), _negated=True),
                fields=["parent_id"],
                name="taskrun_parent",
            ),
        ),
        migrations.AddIndex(
            model_name="taskrun",
            index=models.Index(
                condition=models.Q(("root_id", ""), _negated=True),
                fields=["root_id"],
                name="taskrun_root",
            ),
        ),
    ]
