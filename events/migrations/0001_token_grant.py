import django.db.models.deletion
from django.db import migrations, models
from knox.settings import knox_settings


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("knox", "0009_extend_authtoken_field"),
        migrations.swappable_dependency(knox_settings.TOKEN_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="TokenGrant",
            fields=[
                (
                    "token",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="grant",
                        serialize=False,
                        to=knox_settings.TOKEN_MODEL,
                    ),
                ),
                (
                    "read_only",
                    models.BooleanField(default=False, help_text="Allow GET only"),
                ),
                (
                    "rate",
                    models.PositiveIntegerField(
                        blank=True, help_text="Requests a minute; no limit if empty", null=True
                    ),
                ),
                (
                    "spent_until",
                    models.DateTimeField(
                        editable=False,
                        help_text="When the full rate is available again",
                        null=True,
                    ),
                ),
                (
                    "last_used",
                    models.DateTimeField(editable=False, help_text="To the minute", null=True),
                ),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("rate__isnull", True), ("rate__gte", 1), _connector="OR"
                        ),
                        name="tokengrant_rate",
                    )
                ],
            },
        ),
    ]
