"""Fix what a DRF view otherwise takes from its project's REST_FRAMEWORK setting.

So they keep the contract in any project, and that project's own views keep its settings.
"""

from typing import Any

from rest_framework.metadata import SimpleMetadata
from rest_framework.parsers import JSONParser
from rest_framework.permissions import AllowAny

from .conditional import conditional
from .defaults import DRF_DEFAULTS
from .errors import ExceptionHandler, exception_handler
from .negotiation import Negotiation
from .renderers import ORJSONRenderer
from .transactions import without_transaction


class ContractView:
    """A view with the policies and errors of the contract, and with ETags.

    Any client may use it. This is a mixin: list it before the view class of DRF.
    """

    authentication_classes: Any = ()
    permission_classes: Any = (AllowAny,)
    throttle_classes: Any = ()
    parser_classes: Any = (JSONParser,)
    renderer_classes: Any = (ORJSONRenderer,)
    content_negotiation_class: Any = Negotiation
    metadata_class: Any = SimpleMetadata
    versioning_class: Any = None
    schema: Any = None
    """With None, the view is not in a document that the project makes of its own views."""
    settings = DRF_DEFAULTS

    @classmethod
    def as_view(cls, *args: Any, **initkwargs: Any) -> Any:  # noqa: ANN401
        """Return DRF's view function with ETags, decorated once and not for each request."""
        return without_transaction(conditional(super().as_view(*args, **initkwargs)))  # type: ignore[misc]

    def get_exception_handler(self) -> ExceptionHandler:
        return exception_handler
