"""For tests of programs on a network: networks in memory with a clock made by hand, and a proxy that cuts real ones.

    from net.testing import memory_network, cutting_proxy, protocol_pair

    def test_no_deposit_is_lost():
        with memory_network(seed=17) as network:            # delays, and their order, are drawn from the seed
            network.run_at("bank", serve_the_bank)           # in there net.serve("tcp://bank:7000", ...) is at "bank"
            network.run_at("atm", deposit_100_times)         # net.connect("tcp://bank:7000/requests")
            network.trouble(cuts=20, partitions=3, seconds=60.0)
            network.run()

The programs are the same as on a real network. Time stands still while anybody can run, and jumps to the next event
otherwise, so that a test of hours takes no time; the same seed gives the same run.
"""

from net.testing._memory import MemoryNetwork as MemoryNetwork, memory_network as memory_network
from net.testing._pair import End as End, ProtocolPair as ProtocolPair, protocol_pair as protocol_pair
from net.testing._proxy import CuttingProxy as CuttingProxy, cutting_proxy as cutting_proxy

__all__ = [
    "CuttingProxy",
    "End",
    "MemoryNetwork",
    "ProtocolPair",
    "cutting_proxy",
    "memory_network",
    "protocol_pair",
]

for _public in __all__:
    globals()[_public].__module__ = "net.testing"
del _public
