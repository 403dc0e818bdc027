from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("systemtasks", "0003_acknowledgement"),
    ]

    operations = [
        migrations.CreateModel(
            name="RunAgain",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("key", models.UUIDField(help_text="Of the page that asked, which sends it once")),
                ("run", models.UUIDField(help_text="The run, or the task if one was selected")),
                ("user", models.CharField(max_length=255)),
                ("timestamp", models.DateTimeField()),
                (
                    "celery_id",
                    models.CharField(
                        blank=True,
                        default="",
                        help_text="Of the new run; empty if it was not sent",
                        max_length=255,
                    ),
                ),
                ("problem", models.TextField(blank=True, default="")),
            ],
            options={
                "required_db_vendor": "postgresql",
                "default_permissions": (),
                "indexes": [models.Index(fields=["run"], name="runagain_run")],
                "constraints": [
                    models.UniqueConstraint(fields=("key", "run"), name="runagain_key_run")
                ],
            },
        ),
    ]
