"""Networks as pure functions of one flat parameter vector.

`build_network` gives a named architecture, `from_module` any torch.nn.Module.
"""

from iadd.networks.architectures import ARCHITECTURES, parse_name
from iadd.networks.base import Network
from iadd.networks.layers import Layers, Options, Statistics
from iadd.networks.modules import ModuleNetwork, from_module
from iadd.networks.network import LayeredNetwork, build_network
