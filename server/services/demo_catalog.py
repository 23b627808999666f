"""The words of the demo company: product families, jobs, places and names. All of them are invented.

Kestrel Building Services looks after heating, ventilation and water in schools, pools, bakeries and the like. Plain
data; `server.services.demo` makes records of it.
"""

from __future__ import annotations

from dataclasses import dataclass

COMPANY = "Kestrel Building Services"


@dataclass(frozen=True, slots=True)
class Family:
    """Products that differ in a few properties.

    code: starts the part numbers. share: parts of this family in a thousand. name: a pattern over one word of each
    tuple in `choices`; the first tuple changes fastest. carried: how many of one such part a van carries, 0 for none.
    """

    code: str
    product_class: str
    name: str
    choices: tuple[tuple[str, ...], ...]
    share: int
    criticality: str = "C"
    tracking: str = "none"
    uom: str = "ea"
    carried: int = 1


MAKERS = ("Halvarin", "Tormeq", "Oskvale", "Brisund", "Velmarch", "Drevanta", "Quillmar", "Sarnholt")
TOOLS = ("Flue gas analyser", "Manometer set", "Torque wrench", "Vacuum pump", "Leak detector", "Multimeter")
_DN = tuple(f"DN {size}" for size in (15, 20, 25, 32, 40, 50, 65, 80, 100))
_VOLTS = ("24 V AC", "24 V DC", "230 V")

FAMILIES = (
    Family("PMP", "pump", "{0} circulator pump, head {1}, {2}",
           (MAKERS, ("4 m", "6 m", "8 m", "10 m", "12 m"), _DN[2:]), 60, "A", "serial", carried=0),
    Family("PSL", "seal", "Mechanical seal {0}, shaft {1}, {2}",
           (("carbon/ceramic", "carbon/SiC", "SiC/SiC"), tuple(f"{mm} mm" for mm in range(10, 56, 3)),
            ("EPDM", "FKM", "NBR")), 90, "B", carried=3),
    Family("BRN", "burner", "{0} {1} burner, {2}",
           (MAKERS, ("gas", "oil", "premix", "dual-fuel"),
            ("24 kW", "35 kW", "50 kW", "80 kW", "120 kW", "200 kW", "350 kW")), 30, "A", "serial", carried=0),
    Family("NOZ", "burner", "Oil nozzle {0} gal/h, {1}, {2}",
           (tuple(f"{size / 100:.2f}" for size in range(40, 160, 5)), ("45°", "60°", "80°"), ("solid", "hollow")), 60,
           carried=6),
    Family("IGN", "burner", "{0} ignition electrode, {1}, {2}",
           (MAKERS, ("single", "double"), tuple(f"{mm} mm" for mm in range(40, 130, 10))), 60, "B", carried=2),
    Family("CTL", "controller", "{0} {1} controller, {2}",
           (MAKERS, ("boiler", "cascade", "heating circuit", "ventilation", "differential", "zone"),
            ("2 channels", "4 channels", "8 channels", "16 channels")), 60, "A", "serial", carried=1),
    Family("SNS", "sensor", "{0} sensor {1}, {2}",
           (("Flow temperature", "Outdoor temperature", "Room temperature", "Pressure", "Differential pressure", "CO₂",
             "Humidity", "Flue gas"), ("NTC 10k", "Pt100", "Pt1000", "4–20 mA", "0–10 V"),
            ("50 mm", "100 mm", "150 mm", "200 mm")), 80, "B", carried=2),
    Family("VLV", "valve", "{0} valve {1}, {2}, {3}",
           (("Ball", "Check", "Mixing", "Butterfly", "Balancing", "Safety"), _DN, ("brass", "steel", "bronze"),
            ("PN 10", "PN 16", "PN 25")), 120, "B", carried=2),
    Family("ACT", "actuator", "{0} actuator {1}, {2}",
           (MAKERS, ("4 Nm", "8 Nm", "15 Nm", "30 Nm"), _VOLTS), 50, "B", "serial", carried=1),
    Family("FLT", "filter", "{0} filter {1}, {2}",
           (("Pocket", "Panel", "Carbon", "Oil", "Gas line", "Water"), ("G4", "M5", "F7", "F9", "50 µm", "100 µm"),
            ("287×592", "592×592", "592×892", "3/8\"", "1/2\"", "3/4\"", "1\"")), 100, carried=8),
    Family("FAN", "fan", "{0} fan {1}, {2}",
           (MAKERS, ("Ø 160", "Ø 200", "Ø 250", "Ø 315", "Ø 400"), ("AC", "EC", "EC, explosion-proof")), 40, "A",
           "serial", carried=0),
    Family("BLT", "drive", "V-belt {0} × {1}",
           (("SPZ", "SPA", "SPB", "XPZ"), tuple(f"{mm} mm" for mm in range(630, 2100, 30))), 80, carried=3),
    Family("BRG", "drive", "Bearing {0}, {1}",
           (tuple(f"6{series}{bore:02}" for series in (0, 2, 3) for bore in range(0, 16)), ("2RS", "ZZ", "open", "C3")),
           70, "B", carried=2),
    Family("GSK", "seal", "Gasket {1}, {0}, {2}",
           (_DN, ("flange", "burner door", "inspection cover", "plate"), ("fibre", "graphite", "EPDM", "silicone")), 60,
           carried=10),
    Family("REL", "electrical", "{0} {1}, {2}",
           (("Relay", "Contactor", "Timer relay", "Motor protection switch", "Fuse link"),
            ("4 A", "6 A", "10 A", "16 A", "25 A", "40 A"), _VOLTS), 40, carried=4),
    Family("REF", "consumable", "Refrigerant {0}, cylinder {1}",
           (("R32", "R290", "R454C", "R1234ze"), ("2 kg", "5 kg", "10 kg")), 5, "B", "lot", "kg", carried=1),
    Family("CHM", "consumable", "{0}, {1}, {2}",
           (("Boiler cleaner", "Corrosion inhibitor", "Leak sealer", "Descaler", "Glycol"),
            ("concentrate", "ready mixed", "low odour"), ("1 l", "5 l", "20 l")), 20, "C", "lot", "l", carried=2),
    Family("TOL", "tool", "{0}, {1}", (TOOLS, ("standard", "compact", "professional")), 12, "C", "serial", carried=0),
    Family("KIT", "kit", "{0} service kit, {1}",
           (("Gas burner", "Oil burner", "Circulator pump", "Air handler", "Water softener", "Safety valve"),
            tuple(f"{size} kW" for size in (24, 35, 50, 80, 120, 200, 350))), 35, "B", carried=1),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Job:
    """A kind of work order. lines: of the description. tasks: in their order. parts: classes of parts it may need."""

    title: str
    lines: tuple[str, ...]
    tasks: tuple[str, ...]
    parts: tuple[str, ...]
    urgent: bool = False


JOBS = (
    Job("Boiler service", ("Yearly service of the gas boiler.", "Check the flue draught and note CO and CO₂.",
                           "Leave the plant room key at reception."),
        ("Clean the burner", "Change nozzle and electrode", "Measure the flue gas", "Sign the log book"),
        ("burner", "seal", "kit")),
    Job("No heating", ("The building is cold since this morning.", "The controller shows a burner fault.",
                       "Call the caretaker on arrival."),
        ("Find the fault", "Restore heating", "Tell the caretaker"), ("burner", "controller", "sensor"), urgent=True),
    Job("Pump leaks", ("Water below the circulator pump.", "A tray has been put under it.",
                       "The isolating valves are stiff."),
        ("Isolate the pump", "Change the mechanical seal", "Fill, vent and check the pressure"),
        ("pump", "seal", "valve")),
    Job("Filter change", ("Change all filters of the air handler.", "Filters are on the shelf in the plant room.",
                          "Take the old ones along."),
        ("Change the filters", "Reset the run-hour counter", "Check belt and bearings"), ("filter", "drive")),
    Job("Fan is noisy", ("Grinding noise on the second floor.", "The fan runs above the ceiling of corridor B.",
                         "Bring the long ladder."),
        ("Inspect the fan", "Change bearing or belt", "Balance the air flow"), ("fan", "drive")),
    Job("Valve stuck", ("The mixing valve does not close.", "The hall overheats in the afternoon."),
        ("Free or change the valve", "Teach in the actuator"), ("valve", "actuator")),
    Job("Water treatment", ("Yearly check of the heating water.", "Take a sample before and after."),
        ("Take a sample", "Dose the inhibitor", "Note conductivity and pH"), ("consumable", "filter")),
    Job("Heat pump inspection", ("Leak test and yearly inspection.", "The unit stands on the roof, hatch at stair 2.",
                                 "Note the compressor hours."),
        ("Leak test", "Clean the coil", "Check the controller", "Note the meter reading"),
        ("consumable", "sensor", "controller")),
    Job("Controller replacement", ("Put in the new boiler controller.", "Export the heating curves first.",
                                   "The panel is live: isolate at the board."),
        ("Save the settings", "Mount and wire", "Load the settings and test"), ("controller", "electrical")),
    Job("Safety valve test", ("Test the safety valves and seal them.", "Two persons needed on the ladder."),
        ("Test", "Seal and tag"), ("valve", "kit")),
)  # fmt: skip

NOTES = (
    "Ring at the side door, the bell in front is broken.",
    "The caretaker wants a call half an hour before arrival.",
    "Parking only in the yard, height limit 2.1 m.",
    "Last visit: the shut-off valve behind the tank was stiff.",
    "Hot work needs a permit here, ask at reception.",
    "The customer asks for a quote for a second pump.",
    "Photos of the type plates are in the log book.",
)

GIVEN_NAMES = (
    "Adela Bram Ciara Dario Edda Faris Greta Hanno Ilka Jonas Kaia Lorin Mira Nils Oona Pavel Runa Stellan Tilda Umar "
    "Vesna Wim Yara Zeno"
).split()
FAMILY_NAMES = tuple(
    first + last
    for last in ("wick", "garth", "combe", "mere", "stead", "holm")
    for first in ("Alder", "Brack", "Cinder", "Dray", "Ember", "Fen", "Gorse", "Hollin", "Kest", "Lark", "Marl", "Pell")
)
CUSTOMERS = (
    "Primary School", "Swimming Pool", "Bakery", "Town Hall", "Dairy", "Hotel", "Library", "Cold Store", "Clinic",
    "Brewery", "Sports Hall", "Care Home", "Printing Works", "Laundry", "Nursery", "Theatre",
)  # fmt: skip
PLACES = tuple(
    first + last
    for last in ("haven", "mill", "ford", "bridge", "moor")
    for first in ("Oster", "Tarn", "Wether", "Quay", "Ravel", "Sorrel", "Thistle", "Umber", "Vetch", "Yarrow")
)
DEPOTS = ("North", "South", "East", "West", "Harbour", "Hill", "River", "Lake", "Forest", "Coast")
