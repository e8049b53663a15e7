"""Published backwards, written from naive primitives, with the best version derived by hand beside each."""

from tests.closed.forms.activations import ACTIVATIONS
from tests.closed.forms.attention import ATTENTION
from tests.closed.forms.cells import CELLS
from tests.closed.forms.channels import CHANNELS
from tests.closed.forms.choices import CHOICES
from tests.closed.forms.compositing import COMPOSITING
from tests.closed.forms.contractions import CONTRACTIONS
from tests.closed.forms.contrasts import CONTRASTS
from tests.closed.forms.densities import DENSITIES
from tests.closed.forms.deviations import DEVIATIONS
from tests.closed.forms.diagonals import DIAGONALS
from tests.closed.forms.distances import DISTANCES
from tests.closed.forms.form import Draw, Form
from tests.closed.forms.geometry import GEOMETRY
from tests.closed.forms.graphs import GRAPHS
from tests.closed.forms.heads import HEADS
from tests.closed.forms.labels import LABELS
from tests.closed.forms.layers import LAYERS
from tests.closed.forms.learning import LEARNING
from tests.closed.forms.logistics import LOGISTICS
from tests.closed.forms.losses import LOSSES
from tests.closed.forms.means import MEANS
from tests.closed.forms.multiples import MULTIPLES
from tests.closed.forms.nearest import NEAREST
from tests.closed.forms.networks import NETWORKS
from tests.closed.forms.normalisation import NORMALISATION
from tests.closed.forms.objectives import OBJECTIVES
from tests.closed.forms.once import ONCE
from tests.closed.forms.pairs import PAIRS
from tests.closed.forms.piecewise import PIECEWISE
from tests.closed.forms.policies import POLICIES
from tests.closed.forms.published import PUBLISHED
from tests.closed.forms.rankings import RANKINGS
from tests.closed.forms.robust import ROBUST
from tests.closed.forms.rows import ROWS
from tests.closed.forms.running import RUNNING
from tests.closed.forms.scores import SCORES
from tests.closed.forms.sequences import SEQUENCES
from tests.closed.forms.shares import SHARES
from tests.closed.forms.shifted import SHIFTED
from tests.closed.forms.slopes import SLOPES
from tests.closed.forms.straight import STRAIGHT
from tests.closed.forms.tables import TABLES
from tests.closed.forms.targets import TARGETS
from tests.closed.forms.therealready import THERE_ALREADY
from tests.closed.forms.thresholds import THRESHOLDS
from tests.closed.forms.unequal import UNEQUAL

FORMS: tuple[Form, ...] = (
    *LOSSES,
    *NORMALISATION,
    *ATTENTION,
    *ACTIVATIONS,
    *NETWORKS,
    *PUBLISHED,
    *ROBUST,
    *LEARNING,
    *LAYERS,
    *GRAPHS,
    *HEADS,
    *SEQUENCES,
    *OBJECTIVES,
    *DISTANCES,
    *CONTRACTIONS,
    *TARGETS,
    *CHOICES,
    *LABELS,
    *SLOPES,
    *SHARES,
    *SHIFTED,
    *RANKINGS,
    *ONCE,
    *THERE_ALREADY,
    *PAIRS,
    *SCORES,
    *ROWS,
    *MEANS,
    *CHANNELS,
    *CELLS,
    *MULTIPLES,
    *TABLES,
    *NEAREST,
    *RUNNING,
    *THRESHOLDS,
    *DENSITIES,
    *DEVIATIONS,
    *UNEQUAL,
    *PIECEWISE,
    *CONTRASTS,
    *DIAGONALS,
    *POLICIES,
    *GEOMETRY,
    *STRAIGHT,
    *COMPOSITING,
    *LOGISTICS,
)

__all__ = ["FORMS", "Draw", "Form"]
