from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("systemtasks", "0002_statistics"),
    ]

    operations = [
        migrations.CreateModel(
            name="Acknowledgement",
            fields=[
                ("run", models.UUIDField(primary_key=True, serialize=False)),
                ("user", models.CharField(help_text="The name of who looks at it", max_length=255)),
                ("timestamp", models.DateTimeField()),
                ("note", models.CharField(blank=True, default="", max_length=500)),
            ],
            options={
                "required_db_vendor": "postgresql",
                "default_permissions": (),
                "permissions": (("acknowledge_taskrun", "Can acknowledge failed task runs"),),
                "indexes": [models.Index(fields=["timestamp"], name="acknowledgement_timestamp")],
            },
        ),
    ]
