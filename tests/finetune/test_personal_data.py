"""What tells of a person or opens a door is found; what only looks like it is not."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune import personal_data

RSA = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----"


def found(text: str) -> list[tuple[str, str]]:
    return [(kind, text[start:end]) for kind, start, end in personal_data.find(text)]


@pytest.mark.parametrize(
    ("kind", "value", "around"),
    [
        ("email", "jo.do+tag@mail.example.org", "Write to {}, or not."),
        ("email", "müller@bücher.example", "{}"),
        ("phone", "+44 20 7946 0018", "It is {}."),
        ("phone", "+4915112345678", "{}"),
        ("phone", "(212) 555-0187", "Call {} now"),
        ("phone", "212-555-0187", "{} is it"),
        ("phone", "212.555.0187", "{}x12 is the desk"),
        ("phone", "01 23 45 67 89", "chez moi : {}"),
        ("phone", "030 1234567", "{}"),
        ("phone", "5550187", "Her phone number is {}"),
        ("iban", "DE89 3704 0044 0532 0130 00", "{}"),
        ("iban", "GB29NWBK60161331926819", "to {}, please"),
        ("iban", "fr1420041010050500013M02606", "{}"),
        ("card", "4111 1111 1111 1111", "{} is mine"),
        ("card", "5500-0000-0000-0004", "{}"),
        ("card", "378282246310005", "{}"),
        ("ip_address", "203.0.113.7", "from {}:443"),
        ("ip_address", "2001:db8::ff00:42:8329", "{}"),
        ("us_ssn", "123-45-6789", "{}"),
        ("us_ssn", "123456789", "SSN {}"),
        ("national_id", "12345678Z", "DNI {}"),
        ("national_id", "RSSMRA85T10A562S", "{}"),
        ("national_id", "529.982.247-25", "{}"),
        ("national_id", "44051401359", "PESEL {}"),
        ("national_id", "943 476 5919", "NHS number {}"),
        ("national_id", "QQ123456C".replace("QQ", "AB"), "{}"),
        ("national_id", "131052-308T", "{}"),
        ("national_id", "11010519491231002X", "{}"),
        ("national_id", "86095742719", "Steuer-ID: {}"),
        ("national_id", "1 85 05 78 006 084 91", "{}"),
        ("national_id", "756.9217.0769.85", "{}"),
        ("national_id", "2341 2341 2346", "{}"),
        ("national_id", "C01X00T47", "passport number {}"),
        ("private_key", RSA, "{}"),
        ("api_key", "AKIAIOSFODNN7EXAMPLE", "key {}"),
        ("api_key", "ghp_" + "a1B2" * 9, "{}"),
        ("api_key", "a81bC93kd0Q7zz1Lp4", "api_key = '{}'"),
        ("password", "gl4cier!", "The password is {}."),
        ("password", "hunter22", "password: {}"),
        ("address", "221 Baker Street", "He lives at {}, London"),
        ("address", "Hauptstraße 12", "{}, Köln"),
        ("address", "12 rue de la Paix", "{}"),
        ("address", "Calle Mayor 5", "Vive en {}"),
        ("address", "P.O. Box 123", "{}"),
        ("name", "Ada Lovelace", "My name is {}."),
        ("name", "Okafor", "I saw Dr. {} there"),
        ("name", "Lindqvist", "Her maiden name is {}"),
        ("name", "Anna Kovacs", "{} saw it"),
    ],
)
def test_it_is_found_where_it_stands(kind: str, value: str, around: str) -> None:
    assert (kind, value) in found(around.format(value))


@pytest.mark.parametrize(
    "text",
    [
        "She paid 1,234,567.89 for 12345678 shares, 3.14159265358979 times.",
        "On 2024-11-21 at 10:30:15 it was 12/10/1999 for 3 hours.",
        "Version 10.0.0.1234 and v1.2.3.4 run on 127.0.0.1.",
        "4111 1111 1111 1112 is no card, DE89 3704 0044 0532 0130 01 no account.",
        "12345678A is no DNI and 666-45-6789 no social security number.",
        "You forgot the password. The password is wrong. Your password is required.",
        'password = "{{ password }}"; api_key = "<your key here>"; token: ****************',
        "The key to success is perseverance_and_hard_work_every_day.",
        "5 + 10 - 15 * (20 / 25) = 30, and 1-2-3-4-5 or 100 200 300.",
        "The office needs 5000/500 = 10 reams; 1500 - 300 = 1200 and 3 * 33011356 = 99034068.",
        "The tracking number is 123456789. The sum is 355909190063 - 746.",
        "See https://example.org/page/1234567890 and commit 0123456789abcdef0123.",
        "@someone said a@b and foo@bar",
        "The way to 100 people is long; the court has 3 doors.",
    ],
)
def test_what_only_looks_like_it_is_left_alone(text: str) -> None:
    assert found(text) == []


def test_findings_do_not_overlap_and_the_surer_kind_wins() -> None:
    assert found("Call jo@example.org or 4111 1111 1111 1111") == [
        ("email", "jo@example.org"),
        ("card", "4111 1111 1111 1111"),
    ]


def test_a_street_called_after_somebody_is_a_street() -> None:
    assert found("He lives at 12 Martin Luther Street") == [("address", "12 Martin Luther Street")]


@given(st.text(max_size=300))
def test_any_text_is_read_and_spans_lie_inside(text: str) -> None:
    last = 0
    for _kind, start, end in personal_data.find(text):
        assert last <= start < end <= len(text)
        last = end


@given(st.text("0123456789 +-().:/@abcdefABCDEF", max_size=200))
def test_any_run_of_numbers_is_read(text: str) -> None:
    personal_data.find(text)


@pytest.mark.parametrize(
    "text", ["1" * 50_000, "a." * 20_000, "1 " * 20_000, "A" * 50_000 + "@", "1:" * 20_000]
)
def test_a_hostile_text_takes_no_more_than_its_length(text: str) -> None:
    import time

    start = time.process_time()
    personal_data.find(text)
    assert time.process_time() - start < 2


def test_many_findings_take_time_in_proportion() -> None:
    started = time.process_time()

    assert len(personal_data.find("Write to jo@mail.example.org. " * 30_000)) == 30_000

    assert time.process_time() - started < 5
