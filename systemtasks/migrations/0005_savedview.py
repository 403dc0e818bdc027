from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("systemtasks", "0004_runagain"),
    ]

    operations = [
        migrations.CreateModel(
            name="SavedView",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                (
                    "model",
                    models.CharField(help_text="The name of the list's model", max_length=50),
                ),
                ("user", models.CharField(help_text="The name of who saved it", max_length=255)),
                ("name", models.CharField(max_length=80)),
                ("query", models.CharField(help_text="Of the list's address", max_length=2000)),
                ("shared", models.BooleanField(default=False)),
            ],
            options={
                "required_db_vendor": "postgresql",
                "default_permissions": (),
                "permissions": (("share_savedview", "Can share saved views"),),
                "constraints": [
                    models.UniqueConstraint(
                        fields=("model", "user", "name"), name="savedview_model_user_name"
                    )
                ],
            },
        ),
    ]
