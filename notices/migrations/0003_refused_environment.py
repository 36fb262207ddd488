from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("notices", "0002_channels")]

    operations = [
        migrations.AddField(
            model_name="askedaddress",
            name="refused_at",
            field=models.DateTimeField(null=True),
        ),
    ]
