"""Every fault code, with one line of meaning; a code never changes its meaning once released.

``powerd check`` prints codes, scripts match on them, and ``tests/site`` holds at least one case for each.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class Code(StrEnum):
    """A fault code; ``meaning`` says what it stands for."""

    meaning: str

    def __new__(cls, value: str, meaning: str) -> Self:
        """Make a member of its value and its meaning."""
        code = str.__new__(cls, value)
        code._value_ = value
        code.meaning = meaning
        return code

    # The file itself.
    UNREADABLE = (
        "unreadable",
        "no file that can be read, or wrong usage; only in the JSON of a command that exits with 2",
    )
    NO_RESULT = "no-result", "the command failed, as it says; only in the JSON of a command that comes to no result"
    DUPLICATE_KEY = "duplicate-key", "one mapping has the same key twice; the first counts"
    UNKNOWN_KEY = "unknown-key", "a key that no element of this kind has"
    MISSING_KEY = "missing-key", "a key that this kind of element cannot do without"
    WRONG_TYPE = "wrong-type", "a word where a number belongs, a list where a value belongs"
    OUT_OF_RANGE = "out-of-range", "a number outside what is possible"
    UNKNOWN_CHOICE = "unknown-choice", "a word that is none of the possible ones"
    BAD_FORM = "bad-form", "an id or pattern that is not written as one"
    UNKNOWN_TIMEZONE = "unknown-timezone", "no time zone of that name"
    # What refers to what.
    DUPLICATE_ID = "duplicate-id", "two elements share an id"
    UNKNOWN_BUS = "unknown-bus", "an element hangs on a bus that is not drawn"
    UNKNOWN_TYPE = "unknown-type", "an EVSE of a type that is not described"
    UNKNOWN_CLASS = "unknown-class", "a controller of a class that is not described"
    UNKNOWN_CONTROLLER = "unknown-controller", "a station owned by a controller that is not listed"
    UNKNOWN_METER = "unknown-meter", "a load seen by a meter that is not listed"
    METER_UNKNOWN_ELEMENT = "meter-unknown-element", "a meter at an element that is not drawn"
    INTERLOCK_UNKNOWN_SWITCH = "interlock-unknown-switch", "an interlock over a switch that is not drawn"
    # Numbers that cannot be meant.
    UNIT_SLIP_VOLTAGE = "unit-slip-voltage", "a voltage that looks like kV (0.4) or like a factor of 1000 too much"
    UNIT_SLIP_POWER = "unit-slip-power", "a power that looks like W or VA where kW or kVA belongs"
    UNIT_SLIP_LENGTH = "unit-slip-length", "a length that looks like km where m belongs"
    UNIT_SLIP_CURRENT = "unit-slip-current", "a current that looks like kA or mA where A belongs"
    NEGATIVE_AMPACITY = "negative-ampacity", "a cable that may carry nothing, or less"
    # Wires.
    UNKNOWN_CABLE = "unknown-cable", "a cable type that the catalogue does not have"
    MISSING_IMPEDANCE = "missing-impedance", "a feeder without cable type and without r and x"
    MISSING_RATING = "missing-rating", "a feeder that nothing limits: neither ampacity nor breaker"
    VOLTAGE_MISMATCH = "voltage-mismatch", "a feeder or switch that joins buses of different voltage"
    SAME_BUS = "same-bus", "an element with both ends on one bus"
    WINDING_VOLTAGE = "winding-voltage", "a winding rated for another voltage than its bus has"
    TRANSFORMER_UPSIDE_DOWN = "transformer-upside-down", "the high side of a transformer is the lower voltage"
    VECTOR_GROUP = "vector-group", "a vector group that does not exist, or whose currents powerd cannot map"
    RESISTANCE_ABOVE_IMPEDANCE = "resistance-above-impedance", "vkr is larger than vk"
    # What an overload may last.
    PROTECTION_INCOMPLETE = "protection-incomplete", "an overcurrent device without the figures that its curve needs"
    PROTECTION_WRONG_KEY = "protection-wrong-key", "a trip unit's setting on a device that has none"
    PROTECTION_ORDER = "protection-order", "settings of a trip unit that are not in the order Ir < Isd < Ii"
    TOLERANCE_TOO_SHORT = (
        "tolerance-too-short",
        "an overload may last longer than an element stands it (docs/leases.md R9)",
    )
    # The drawing as a whole.
    NO_SUPPLY = "no-supply", "nothing feeds the site"
    NO_EVSE = "no-evse", "the site has no EVSE to grant anything to"
    TOO_MANY_EVSES = "too-many-evses", "more EVSEs than one daemon takes"
    ISLAND = "island", "a bus that no supply can reach in any switching state"
    DEAD_EVSE = "dead-evse", "an EVSE on a bus that is not energised in the normal switching state"
    PARALLEL_SUPPLIES = "parallel-supplies", "two supplies are connected in the normal state without permission"
    CLOSED_LOOP = "closed-loop", "closed switches form a ring; limits hold for buses that are fed one way"
    INTERLOCK_BROKEN = "interlock-broken", "the normal switch positions break an interlock"
    # Charging.
    MISSING_POST_RATING = "missing-post-rating", "an AC type without max_current_a, a DC type without max_power_kw"
    WRONG_CURRENT_KIND = "wrong-current-kind", "an AC type with a DC type's key, or the other way round"
    NOT_THREE_PHASE = "not-three-phase", "what only a three-phase post can do, asked of another one"
    SWITCHES_UNDER_CURRENT = "switches-under-current", "a post that switches phases and charges without powerd's word"
    MINIMUM_ABOVE_MAXIMUM = "minimum-above-maximum", "the smallest ceiling of an EVSE is above its rating"
    PILOT_STEP_BELOW_MINIMUM = "pilot-step-below-minimum", "a pilot step between 0 and the smallest current"
    PILOT_STEP_ABOVE_MAXIMUM = "pilot-step-above-maximum", "a pilot step above the rating"
    FALLBACK_BELOW_MINIMUM = "fallback-below-minimum", "a fallback above 0 that no car can charge with"
    FALLBACK_ABOVE_RATING = "fallback-above-rating", "a fallback or boot current above the rating"
    FALLBACK_SUM = "fallback-sum", "what charges without powerd's word does not fit under a limit (docs/leases.md R5)"
    NO_TURN = "no-turn", "an EVSE that may get nothing while cars stand at all others: they hold their fallbacks"
    WRONG_CONNECTION = "wrong-connection", "the type's phases do not fit the phases of the bus it hangs on"
    MISSING_CONNECTION = "missing-connection", "a one-phase or line-to-line EVSE that does not say which phases"
    TTL_SHORTER_THAN_REACTION = "ttl-shorter-than-reaction", "a lease that ends before a car can have followed it"
    NO_WATCHDOG = "no-watchdog", "EVSEs of this class never fall back on their own, so they count at their rating"
    CONTROLLER_WITHOUT_EVSE = "controller-without-evse", "a controller that no station names: it has no EVSE"
    # Loads and contract.
    WORST_BELOW_TYPICAL = "worst-below-typical", "a load whose most is less than its usual"
    ENVELOPE_ABOVE_IMPORT = "envelope-above-import", "the promised lowest envelope is above the contracted import"
    ENVELOPE_WITHOUT_IMPORT = "envelope-without-import", "an envelope or failsafe limit, and no import limit to lower"
    BALANCE_BELOW_MINIMUM = (
        "balance-below-minimum",
        "an imbalance or neutral limit that not even one one-phase car can charge under",
    )
    LOAD_ABOVE_RATING = "load-above-rating", "other loads alone can exceed a limit; EVSEs behind it may get nothing"
    # Terms of the user's own.
    USER_TERMS = "user-terms", "a file of terms: that cannot be run, or whose terms the program cannot take"
    # The imported network.
    NET_FILE_MISSING = "net-file-missing", "the file named by network: is not there"
    NET_FILE_UNREADABLE = "net-file-unreadable", "the file named by network: is not a pandapower net"
    NET_BAD_VALUE = "net-bad-value", "a row of the imported net with an impossible value"
    NET_THREE_WINDING = "net-three-winding", "the imported net has a three-winding transformer"
    NET_UNSUPPORTED = "net-unsupported", "the imported net has an element that powerd has no rules for"
    NET_IGNORED = "net-ignored", "the imported net has generation, which powerd does not count on"
    NET_NOT_GIVEN = "net-not-given", "a bus is mapped to an imported net, but there is none"
    UNKNOWN_NET_BUS = "unknown-net-bus", "a bus is mapped to one that the imported net does not have, or has twice"
    NET_BUS_TWICE = "net-bus-twice", "two buses are mapped to the same bus of the imported net"
