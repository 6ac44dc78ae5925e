"""Back-tests of risk forecasts: rate, order, size and shape of what came true.

Every test gives a frozen result with a statistic and a p-value. Those of rate and order take the
booleans of `violations` and the probability of a violation; the others take returns, forecasts
and a level, above one half for an upper tail.
"""

from glow_bt.risk.backtests.acerbi_szekely import (
    AcerbiSzekelyResult,
    acerbi_szekely_test,
    distribution_tail,
    exponential_tail,
)
from glow_bt.risk.backtests.coverage import (
    BinomialResult,
    KupiecResult,
    binomial_test,
    kupiec_test,
)
from glow_bt.risk.backtests.diebold_mariano import DieboldMarianoResult, diebold_mariano_test
from glow_bt.risk.backtests.dynamic_quantile import DynamicQuantileResult, dynamic_quantile_test
from glow_bt.risk.backtests.exceedances import McNeilFreyResult, mcneil_frey_test
from glow_bt.risk.backtests.independence import (
    ChristoffersenResult,
    ConditionalCoverageResult,
    christoffersen_test,
    conditional_coverage_test,
)
from glow_bt.risk.backtests.losses import fz0_loss, fz0_losses, quantile_loss, quantile_losses
from glow_bt.risk.backtests.tails import violations
from glow_bt.risk.backtests.traffic_light import TrafficLightResult, traffic_light
from glow_bt.risk.backtests.uniformity import (
    AndersonDarlingResult,
    KolmogorovSmirnovResult,
    anderson_darling_test,
    kolmogorov_smirnov_test,
)

__all__ = [
    "AcerbiSzekelyResult",
    "AndersonDarlingResult",
    "BinomialResult",
    "ChristoffersenResult",
    "ConditionalCoverageResult",
    "DieboldMarianoResult",
    "DynamicQuantileResult",
    "KolmogorovSmirnovResult",
    "KupiecResult",
    "McNeilFreyResult",
    "TrafficLightResult",
    "acerbi_szekely_test",
    "anderson_darling_test",
    "binomial_test",
    "christoffersen_test",
    "conditional_coverage_test",
    "diebold_mariano_test",
    "distribution_tail",
    "dynamic_quantile_test",
    "exponential_tail",
    "fz0_loss",
    "fz0_losses",
    "kolmogorov_smirnov_test",
    "kupiec_test",
    "mcneil_frey_test",
    "quantile_loss",
    "quantile_losses",
    "traffic_light",
    "violations",
]
