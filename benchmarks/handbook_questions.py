"""Questions about the 18F handbook (../shared/data/docs/18f_handbook) with their answers.

Written by reading the pages. The second half was written after the generator was settled and
never used to change it.
"""

from typing import NamedTuple


class HandbookQuestion(NamedTuple):
    """`file`: below pages/, where the first phrase stands. `phrases`: any of them is the answer,
    white space aside; some pages say the same in other words."""

    question: str
    file: str
    phrases: tuple[str, ...]


_LEAVE = "travel-and-leave/leave.md"
_GUIDE = "travel-and-leave/travel-and-leave-policies"
_HOW = "18f/how-18f-works"
_GENERAL = "general-information-and-resources"
_EMPLOYEE = f"{_GENERAL}/employee-resources-policies"

HANDBOOK_QUESTIONS = [
    HandbookQuestion(*row)
    for row in [
        ("How many weeks of paid parental leave am I entitled to?", "travel-and-leave/paid-parental-leave.md", ("12 weeks of paid time off",)),
        ("When does comp time expire?", "travel-and-leave/overtime.md", ("expires one year (26 pay periods)",)),
        ("How many hours of advanced sick leave can I request?", _LEAVE, ("up to 240 hours of advanced sick leave",)),
        ("How long must the passcode of my work phone be?", "getting-started/equipment.md", ("longer than 14 characters",)),
        ("How quickly do I have to report a security incident?", f"{_GENERAL}/tech-policies/security-incidents.md", ("within 1 hour", "within one hour")),
        ("Which password manager is recommended?", f"{_GENERAL}/tech-policies/password-requirements.md", ("KeePassXC",)),
        ("When do I have to submit my travel voucher after a trip?", f"{_GUIDE}/travel-guide-3-travel.md", ("within 5 business days",)),
        ("How much can a sandbox user spend per month without permission?", "launching-software/infrastructure.md", ("500 per month",)),
        ("Which days does GSA process new badges?", "getting-started/piv.md", ("processes new badges every Wednesday",)),
        ("Should I delete or close a Trello board when the work is done?", "tools/trello.md", ("Close boards",)),
        ("How far in advance should I start offboarding before my last day?", "hiring-staying-or-changing-jobs/leaving-tts.md", ("at least two weeks before your last day",)),
        ("How large can files be on DOD SAFE?", f"{_GENERAL}/collaboration-tools.md", ("up to 8.0 GB",)),
        ("Who is eligible for transit subsidies?", f"{_EMPLOYEE}/transit-benefit.md", ("All GSA employees who take mass/public transit",)),
        ("What is the maximum number of hours I can work in a single day on a flexible schedule?", f"{_EMPLOYEE}/work-schedules.md", ("in a single day is 12",)),
        ("May I use a personal meeting ID for Zoom meetings?", "tools/zoom.md", ("Do not use a Personal Meeting ID",)),
        ("How long does a detail last and can it be extended?", "hiring-staying-or-changing-jobs/gsa-details.md", ("Details last for 120 days", "Details last up to 120 days")),
        ("When are inactive Mural members converted to guests?", "tools/mural.md", ("than 90 days should be converted to guests",)),
        ("What do I need to have used up before I can receive donated leave?", "travel-and-leave/voluntary-leave-transfer-program.md", ("Exhausted all leave balances",)),
        ("How long do name changes take to show up in GSA systems?", f"{_HOW}/changing-your-name.md", ("up to 5 business days",)),
        ("What should I do with my computer if I notice suspicious activity?", f"{_GENERAL}/tech-policies/security-incidents.md", ("DO NOT turn off your computer",)),
    ]
]  # fmt: skip
