"""Where Hydra finds the configurations of the commands of eval: in conf/eval, as one folder would be too full."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin


class OfEval(SearchPathPlugin):
    """Adds conf/eval to every search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Hydra calls it before it composes."""
        search_path.append(provider="eval", path="pkg://conf.eval")


def extend_search_path() -> None:
    """Make the folder known to Hydra. Safe to call more than once."""
    Plugins.instance().register(OfEval)
