"""Published backwards, written from naive primitives, with the best version derived by hand beside each."""

from tests.closed.forms.activations import ACTIVATIONS
from tests.closed.forms.attention import ATTENTION
from tests.closed.forms.form import Draw, Form
from tests.closed.forms.losses import LOSSES
from tests.closed.forms.networks import NETWORKS
from tests.closed.forms.normalisation import NORMALISATION
from tests.closed.forms.published import PUBLISHED

FORMS: tuple[Form, ...] = (*LOSSES, *NORMALISATION, *ATTENTION, *ACTIVATIONS, *NETWORKS, *PUBLISHED)

__all__ = ["FORMS", "Draw", "Form"]
