"""Random histories of devices, a hub and a bad network, each replayable from its seed.

    python -m tests.simulation --seeds 0:2000        run histories; exit 1 if an invariant broke
    python -m tests.simulation --seed 17             replay one, and shrink it if it fails
    python -m tests.simulation.bugs                  show that seeded bugs are caught

The clients are real (`client_sdk.FieldClient` on SQLite files), and so are push, pull and office services; network,
clocks and chance are the simulator's. A history has a phase of chaos, in which faults happen, and then heals: what was
captured has to come through in a few syncs, and everything is compared. After FoundationDB's simulation and
TigerBeetle's VOPR (safety first, then liveness).
"""
