import tests.helpers.unformatted_configs  # noqa: F401
from tests.helpers.training import toy_data

__all__ = ['toy_data']
