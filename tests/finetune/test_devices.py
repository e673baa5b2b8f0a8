from typing import Any

import pytest

from finetune import devices

REPORT: dict[str, Any] = {
    "tokens": 10**9,
    "processes": 2,
    "memory_on_card": {"parameters": 10**9, "total": 30 * 2**30},
}


def reckoned(name: str, **changes: Any) -> devices.Estimate:
    (device,) = (each for each in devices.DEVICES if each.name == name)
    found = devices.estimate({**REPORT, **changes}, device, hour_price=2.0, energy_price=0.3)
    assert found is not None
    return found


def test_time_energy_and_cost_follow_from_the_work_and_the_data_sheet() -> None:
    found = reckoned("H100 80 GB")
    device_s = 6 * 10**18 / (989e12 * 0.35)

    assert found.seconds == pytest.approx(device_s / 2)
    assert found.energy_wh == pytest.approx(700 * device_s / 3600)
    assert found.cost == pytest.approx(device_s / 3600 * 2.0 + found.energy_wh / 1000 * 0.3)
    assert reckoned("H100 80 GB", processes=1).cost == pytest.approx(found.cost)
    assert reckoned("H100 80 GB", method="dpo").seconds == pytest.approx(found.seconds * 8 / 6)


def test_a_run_fits_where_some_memory_is_left() -> None:
    assert not reckoned("RTX 4090").fits
    assert reckoned("A100 40 GB").fits
    assert not reckoned("A100 40 GB", memory_on_card={"parameters": 1, "total": 39 * 2**30}).fits


def test_a_report_without_a_look_at_the_memory_gives_no_estimate() -> None:
    assert len(devices.estimates(REPORT, hour_price=0, energy_price=0)) == len(devices.DEVICES)
    for report in ({}, {**REPORT, "memory_on_card": {"problem": "No."}}, {"tokens": 0}):
        assert devices.estimates(report, hour_price=0, energy_price=0) == []


def test_every_card_has_a_name_of_its_own() -> None:
    assert len({device.name for device in devices.DEVICES}) == len(devices.DEVICES)
