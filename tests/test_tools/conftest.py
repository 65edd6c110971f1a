from tests.helpers.training import toy_data

__all__ = ['toy_data']
