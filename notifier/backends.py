"""The addresses of RabbitMQ and Redis as the settings have them, and as these change."""

from notifier.adapters.redis.connection import connection_options
from notifier.core.addresses import Address
from notifier.settings import Settings, SettingsError


class Backends:
    """Where the backends are; their passwords may be replaced while connections stand."""

    def __init__(self, settings: Settings) -> None:
        self.check(settings)
        self.amqp = Address(settings.amqp_url.get_secret_value())
        self.redis = Address(settings.redis_url.get_secret_value())

    @staticmethod
    def check(settings: Settings) -> None:
        """Raise SettingsError for addresses that cannot be."""
        try:
            connection_options(settings.redis_url.get_secret_value())
        except ValueError as error:
            raise SettingsError([f"NOTIFIER_REDIS_URL: {error}"]) from error

    def take(self, changed: Settings) -> list[str]:
        """Take the passwords of changed settings; return the settings that name another place."""
        pairs = {"amqp_url": self.amqp, "redis_url": self.redis}
        return [
            name
            for name, address in pairs.items()
            if not address.replace(getattr(changed, name).get_secret_value())
        ]
