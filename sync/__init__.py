"""The sync core: values and laws, with no I/O, no clock and no randomness of its own.

Server and SDK are two shells around it. To read it in order:

clock, record, mutation     what a write is called, what is known of a record, what a device sends
entity, entities/           how an entity is declared, and the ten that are
policy, merge3, merge       which of several concurrent writes stands; one mutation into one record
admit, view, cases          what may take place; the push in memory; what is written down for whoever decides
hub, waiting                a whole push; what waited until it could
scopes, feed                who gets a record; what readers are told, and where they stand
protocol, wire              the messages of the exchange, and their JSON documents
store, memory               what the hub keeps, as an interface; the reference implementation
replica, session            what a device keeps; one sync, straight down
validate, schema, errors    checks and documents derived from the declarations; everything that can go wrong
"""

from sync.clock import HUB, Clock, Dot, Origin
from sync.mutation import Decision, Mutation, Problem, Result
from sync.protocol import Change, Page, PullRequest, Push, PushResult, SyncServer
from sync.record import Key, Record

__all__ = [
    "HUB",
    "Change",
    "Clock",
    "Decision",
    "Dot",
    "Key",
    "Mutation",
    "Origin",
    "Page",
    "Problem",
    "PullRequest",
    "Push",
    "PushResult",
    "Record",
    "Result",
    "SyncServer",
]
