"""Write the demo's data: ``include/reference/demo.yml`` and the sample files beside this module.

Every file has a seed of its own, so running this again reproduces the committed files byte for byte. People,
companies and contracts are made up; addresses are of example.com and its like, phone numbers of the ranges that
are kept free for films.
"""

from __future__ import annotations

import csv
import io
import random
import sys
import unicodedata
from collections.abc import Callable, Iterable
from datetime import date, timedelta
from pathlib import Path

CONTRACTS = 1500
SIGNED_FROM, RESULTS_FROM = date(2024, 3, 1), date(2025, 4, 1)

Row = list[str]
Fault = Callable[[random.Random, Row], Row]

DEMO = """\
# Reference data of the demo: an energy supplier's contracts and contacts, and a small travel agency.
# Written by include/samples/generate.py; change it there.
lists:
  countries: [AT, BE, CH, CZ, DE, DK, ES, FI, FR, GB, GR, HU, IE, IT, LU, NL, "NO", PL, PT, RO, SE, SK, TR]
domains:
  - code: TRAVEL
    name: Meridian Travel
    phases:
      - {code: BOOKING, description: Bookings}
    statuses:
      - {code: "10", phase: BOOKING, description: Enquiry, initial: true}
      - {code: "90", phase: BOOKING, description: Travelled, definitive: true}
    contracts:
      - {form_id: T-0001, sign_up_date: 2025-01-15}
      - {form_id: T-0002, sign_up_date: 2025-02-03}
    origins:
      - {code: EXPO, name: Travel expo}
      - {code: PARTNER, name: Partner hotels}
    subscriptions:
      - {list_id: JOURNEYS, name: Journeys of the month, type: email, display_sequence: 1}
      - {list_id: LAST-MINUTE, name: Last minute, type: mobile, display_sequence: 2}
  - code: DEMO
    name: Nordlicht Energy
    phases:
      - {code: INTAKE, description: Signed and being checked}
      - {code: ACTIVE, description: Supplied}
      - {code: END, description: Ended}
    statuses:
      - {code: "10", phase: INTAKE, description: Signed, initial: true}
      - {code: "20", phase: INTAKE, description: Welcome call made}
      - {code: "25", phase: INTAKE, description: Documents missing}
      - {code: "30", phase: ACTIVE, description: Confirmed by the customer}
      - {code: "35", phase: ACTIVE, description: Confirmed for want of an objection, automatic_after_days: 30}
      - {code: "40", phase: ACTIVE, description: Supply has begun}
      - {code: "45", phase: ACTIVE, description: First anniversary, automatic_after_days: 365}
      - {code: "80", phase: END, description: Refused by the grid operator, definitive: true}
      - {code: "90", phase: END, description: Cancelled by the customer, definitive: true, churn: true}
    origins:
      - {code: WEB, name: Web shop}
      - {code: FAIR-2025, name: Spring fair 2025}
      - {code: REFERRAL, name: Customers recommend us}
      - {code: FAIR-2019, name: Spring fair 2019, active: false}
    subscriptions:
      - {list_id: NEWS, name: Newsletter, type: email, display_sequence: 1}
      - {list_id: CATALOGUE, name: Printed catalogue, type: mail, display_sequence: 2}
      - {list_id: CALLS, name: Offers by phone, type: phone, display_sequence: 3}
      - {list_id: FAX-2004, name: Offers by fax, type: fax, display_sequence: 4, disabled: true}
    contracts:
"""


def main(reference: Path, samples: Path) -> None:
    """Write everything."""
    lines = [f"      - {{form_id: {form_id}, sign_up_date: {day}}}\n" for form_id, day in contracts()]
    reference.write_text(DEMO + "".join(lines), encoding="utf-8")
    clean = clean_results()
    people = fair_contacts()
    signed = clean_contracts()
    for name, content in {
        "result_codes_2025_05.csv": _csv(clean, ";"),
        "result_codes_2025_06.csv": dirty_results(clean).encode(),
        "partner_results_2025_06.csv": partner_results(),
        "contacts_spring_fair.csv": _csv([HEADER, *people], ","),
        "kontakte_webshop.csv": webshop_contacts(people).encode("utf-8-sig"),
        "contacts_agency.csv": _csv([HEADER, *contacts(random.Random("agency"), "A", 120)], ";"),
        "call_centre_2025_07.csv": call_centre_results(),
        "result_codes_2025_07.csv": cut_off_results(),
        "travel_leads.csv": travel_leads(),
        "contracts_2025_05.csv": _csv([CONTRACT_HEADER, *signed], ";"),
        "contracts_2025_06.csv": dirty_contracts(signed).encode("utf-8-sig"),
    }.items():
        (samples / name).write_bytes(content)


def _csv(rows: Iterable[Row], delimiter: str, line_end: str = "\n", encoding: str = "utf-8") -> bytes:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=line_end).writerows(rows)
    return text.getvalue().encode(encoding)


# Contract statuses ---------------------------------------------------------------------------------------------

AGENTS = ["Jürgen Weiß", "Zoë Lefèvre", "Łukasz Wójcik", "Ana Peña", "Søren Ågård", "Miloš Dvořák", "—"]
PARTNER_AGENTS = ["Jürgen Weiß", "Zoë Lefèvre", "Ana Peña", "Søren Ågård", "Inês Conceição"]
REMARKS = [
    "", "", "", "", "Rückruf erwünscht", "rappeler après 18 h", "paid in advance", "dzwonić rano",
    'calls herself "the boss"', "flat 3; second bell", "prefers letters", "naïve question about façade panels",
]  # fmt: skip


def contracts() -> list[tuple[str, date]]:
    """Form id and sign-up date of every contract of the domain DEMO."""
    chance = random.Random("contracts")
    return [(f"F{240001 + i}", SIGNED_FROM + timedelta(days=chance.randrange(390))) for i in range(CONTRACTS)]


def result(chance: random.Random, form_id: str, day: date, code: str) -> Row:
    return [form_id, f"{day:%d-%m-%Y}", code, chance.choice(AGENTS), chance.choice(REMARKS)]


def clean_results() -> list[Row]:
    """One or two statuses for 1,000 contracts; every tenth contract comes to its end."""
    chance = random.Random("clean results")
    rows = []
    for i, (form_id, _) in enumerate(contracts()[:1000]):
        day = RESULTS_FROM + timedelta(days=chance.randrange(20))
        rows.append((day, result(chance, form_id, day, chance.choice(["20", "25", "30"]))))
        if i % 5 == 0:
            day += timedelta(days=chance.randrange(1, 20))
            rows.append(
                (day, result(chance, form_id, day, chance.choice(["80", "90"] if i % 10 else ["40"])))
            )
    return [row for _, row in sorted(rows, key=lambda pair: pair[0])]


def dirty_results(clean: list[Row]) -> str:
    """What a hurried person sends: mostly right, with a fault of every sort, mixed line ends and blank lines."""
    chance = random.Random("dirty results")
    ended = [row for row in clean if row[2] in ("80", "90")]
    lines = []
    for i, (form_id, _) in enumerate(contracts()[1000:1400]):
        day = date(2025, 5, 1) + timedelta(days=chance.randrange(28))
        row = result(chance, form_id, day, chance.choice(["20", "25", "30", "40"]))
        fault = RESULT_FAULTS[i // 6 % len(RESULT_FAULTS)] if i % 6 == 0 else None
        lines.append(_line(fault(chance, row) if fault else row, ";"))
    for row in chance.sample(ended, 8):  # a definitive status is not overwritten
        lines.append(_line([row[0], "02-06-2025", "30", *row[3:]], ";"))
    for row in chance.sample(clean, 8):  # late news: history only
        lines.append(_line([row[0], "10-03-2025", "25", *row[3:]], ";"))
    for row in chance.sample(clean, 8):  # known already
        lines.append(_line(row, ";"))
    lines += [lines[7], lines[8], lines[9]]  # the same record twice
    lines += ['F241390;03-06-2025;30;"Ana" Peña;bad quotes', "", "F241391;03-06-2025;30"]
    lines += ["F241392;03-06-2025;30;Ana Peña;flat 3;second bell", "", ""]
    return "".join(line + ("\n" if i % 9 else "\r\n") for i, line in enumerate(lines))


def _line(row: Row, delimiter: str) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="").writerow(row)
    return text.getvalue()


def _put(place: int, *values: str) -> Fault:
    """A fault that writes one of some values into a cell."""
    return lambda chance, row: [*row[:place], chance.choice(values), *row[place + 1 :]]


RESULT_FAULTS: list[Fault] = [
    _put(1, "31-02-2025", "29-02-2025", "2025-05-17", "17/05/2025", "1-5-2025", "17-05-25", "17 mei 2025"),
    _put(1, "01-01-2099"),
    _put(1, ""),
    _put(2, "99", "Z1", "3O"),
    _put(2, "", "30 A"),
    _put(0, "F990001", "F990002", "240017", "f241017"),
    _put(0, "", "F24 1021", "F24\u200b1022"),
    _put(4, "=1+1", "=HYPERLINK(\"https://example.com\")", "@SUM(A1)", "-"),
    _put(4, "first line\nsecond line"),
    lambda _, row: row[:3],
    lambda _, row: [*row, "one too many"],
]  # fmt: skip


def partner_results() -> bytes:
    """A partner's system: a header, Windows-1252 and CR LF; three codes that nobody knows here."""
    chance = random.Random("partner")
    rows = [["Form ID", "Date Result", "Result code", "Agent", "Remark"]]
    for i, (form_id, _) in enumerate(contracts()[1200:]):
        day = date(2025, 6, 1) + timedelta(days=chance.randrange(28))
        code = "P7" if i % 100 == 50 else chance.choice(["30", "40", "40", "90"])
        remark = chance.choice(
            ["", "", "Bonus 50 €", "à rappeler", "Grüße „vom Chef“", "œuvre d’art – façade"]
        )
        rows.append([form_id, f"{day:%d-%m-%Y}", code, chance.choice(PARTNER_AGENTS), remark])
    return _csv(rows, ";", "\r\n", "cp1252")


def call_centre_results() -> bytes:
    """A call centre with American dates: most of them are wrong here, so the whole file is."""
    chance = random.Random("call centre")
    rows = []
    for form_id, _ in contracts()[:200]:
        day = date(2025, 7, 1) + timedelta(days=chance.randrange(28))
        row = result(chance, form_id, day, "40")
        row[1] = f"{day:%m/%d/%Y}" if chance.random() < 0.8 else row[1]
        rows.append(row)
    return _csv(rows, ";")


def cut_off_results() -> bytes:
    """A copy that broke off in the middle of a quoted remark."""
    chance = random.Random("cut off")
    rows = [result(chance, form_id, date(2025, 7, 14), "40") for form_id, _ in contracts()[:90]]
    return _csv(rows, ";") + 'F240091;14-07-2025;40;Ana Peña;"asked for a call back; the bell is br'.encode()


# Contracts -----------------------------------------------------------------------------------------------------

CONTRACT_HEADER = ["Form ID", "Sign-up date", "Customer number", "Remark"]


def clean_contracts() -> list[Row]:
    """A spring's new contracts; two thirds name their contact, from the spring fair."""
    chance = random.Random("clean contracts")
    return [signed(chance, f"F{250001 + i}", date(2025, 4, 1) + timedelta(i // 5)) for i in range(300)]


def signed(chance: random.Random, form_id: str, day: date) -> Row:
    customer = f"K{chance.randrange(10001, 10801)}" if chance.random() < 0.67 else ""
    return [form_id, f"{day:%d-%m-%Y}", customer, chance.choice(REMARKS)]


def dirty_contracts(known: list[Row]) -> str:
    """Next month's file, typed by hand: new contracts, corrections of known ones, and a fault of every sort."""
    chance = random.Random("dirty contracts")
    rows = [signed(chance, f"F{250301 + i}", date(2025, 6, 1) + timedelta(i // 7)) for i in range(200)]
    for i in range(0, len(rows), 5):
        rows[i] = CONTRACT_FAULTS[i // 5 % len(CONTRACT_FAULTS)](chance, rows[i])
    for row in chance.sample(known, 20):  # signed a day earlier than was said
        day = date(int(row[1][6:]), int(row[1][3:5]), int(row[1][:2])) - timedelta(days=1)
        rows.append([row[0], f"{day:%d-%m-%Y}", "", "corrected"])
    # Known already, and without a customer: which of two files of different kinds is loaded first makes no difference.
    rows += [[*row[:2], "", ""] for row in chance.sample(known, 20) if row[0] not in {r[0] for r in rows}]
    rows += [rows[1], rows[2], [rows[3][0], "01-07-2025", *rows[3][2:]]]  # twice the same, and a later word
    return _csv([CONTRACT_HEADER, *rows], ";", "\r\n").decode()


CONTRACT_FAULTS: list[Fault] = [
    _put(1, "31-06-2025", "2025-06-17", "06/17/2025", "1-6-2025", "17 juin 2025"),
    _put(1, "01-01-2099"),
    _put(1, ""),
    _put(0, "", "F25 0321", "F25\u200b0322"),
    _put(2, "K99999", "k10001", "10001"),
    _put(2, "K 10002"),
    _put(3, "=1+1", "@SUM(A1)", "first line\nsecond line"),
    lambda _, row: row[:2],
    lambda _, row: [*row, "one too many"],
]


# Contacts ------------------------------------------------------------------------------------------------------

HEADER = ["Customer number", "Email", "First name", "Last name", "Company", "Phone", "Mobile",
          "Street", "Postal code", "City", "Country", "Birth date", "Language", "Roles", "Loyalty card"]  # fmt: skip
GERMAN_HEADER = ["Kundennummer", "E-Mail-Adresse", "Vorname", "Nachname", "Firma", "Telefon", "Mobil",
                 "Straße", "PLZ", "Ort", "Land", "Geburtsdatum", "Sprache", "Rollen", "Kundenkarte",
                 "Kampagnen", "Anmeldungen", "Abmeldungen", "Bemerkung"]  # fmt: skip

# First names, last names, companies, phones, streets, cities with their postal codes: by country.
PEOPLE: dict[str, tuple[str, str, str, str, str, str]] = {
    "DE": ("Jürgen Änne Björn Käthe Sören Heike", "Müller Weiß Schäfer Groß Özdemir von·Lüttichau",
           "Bäckerei·Grün|Nordwind·GmbH||", "+493023125###", "Lindenstraße|Am·Markt|Königsallee",
           "10115·Berlin|50667·Köln|80331·München"),
    "FR": ("Zoë François Anaïs Jérôme Noémie Loïc", "Lefèvre Noël d’Alembert Béranger Garçon Île",
           "Café·Crème|Boulangerie·Côté·Sud||", "+3319900####", "rue·de·l’Église|boulevard·Voltaire",
           "75011·Paris|69002·Lyon|13001·Marseille"),
    "GB": ("Siobhán Rhys Niamh Angus Chloë Gareth", "O'Brien MacLeod Brontë Smythe-Jones Ó·Súilleabháin",
           "Fish·&·Sons|Tea,·Please·Ltd||", "+442079460###", "High·Street|Abbey·Lane", "SW1A·1AA·London|M1·1AE·Manchester"),
    "PL": ("Łukasz Małgorzata Zbigniew Bożena Paweł", "Wójcik Żółkowski Dąbrowska Łęcki Święcicka",
           "Piekarnia·Źródło||", "+482255501##", "ulica·Długa|aleja·Róż", "00-001·Warszawa|31-042·Kraków"),
    "SE": ("Åsa Östen Märta Göran Linnéa", "Ångström Sjöberg Öberg Lindström Håkansson",
           "Blåbär·AB||", "+4684650###", "Storgatan|Södra·Vägen", "111·22·Stockholm|411·03·Göteborg"),
    "ES": ("Íñigo Begoña Martín Lucía Núria", "Núñez Peña Ibáñez de·la·Cruz Muñoz",
           "Panadería·El·Niño||", "+3491555####", "Calle·del·Niño|Gran·Vía", "28013·Madrid|08002·Barcelona"),
    "CZ": ("Miloš Růžena Jiří Šárka Ondřej", "Dvořák Říha Čapek Šťastná Žižková",
           "Pekárna·U·Švejka||", "+42022555####", "Dlouhá|Široká", "110·00·Praha|602·00·Brno"),
    "TR": ("İbrahim Gülşah Işıl Çağlar Ömer", "Yıldız Şahin Öztürk Çelik Iğdır",
           "Fırın·Güneş||", "+9021255#####", "Bağdat·Caddesi|İstiklal·Caddesi", "34710·İstanbul|06420·Ankara"),
}  # fmt: skip


def contacts(chance: random.Random, prefix: str, count: int) -> list[Row]:
    """People with everything filled in as the template wants it; numbers count up from the prefix."""
    return [contact(chance, f"{prefix}{10001 + i}") for i in range(count)]


def contact(chance: random.Random, number: str) -> Row:
    country = chance.choice(sorted(PEOPLE))
    firsts, lasts, companies, phone, streets, cities = PEOPLE[country]
    first, last = _one(chance, firsts, " "), _one(chance, lasts, " ")
    postal_code, _, city = _one(chance, cities, "|").rpartition(" ")
    phone = "".join(str(chance.randrange(10)) if c == "#" else c for c in phone)
    born = date(1938, 1, 1) + timedelta(days=chance.randrange(25_000))
    return [
        number, f"{_ascii(first)}.{_ascii(last)}.{number.lower()}@{chance.choice(['example.com', 'post.example.org', 'example.net'])}",
        first, last, _one(chance, companies, "|"), phone if chance.random() < 0.8 else "",
        f"+4917139200{chance.randrange(100):02}" if chance.random() < 0.3 else "",
        f"{_one(chance, streets, '|')} {chance.randrange(1, 200)}", postal_code, city, country,
        f"{born:%Y-%m-%d}" if chance.random() < 0.7 else "", *extras(number, country),
    ]  # fmt: skip


LANGUAGES = {"GB": "en", "SE": "sv", "CZ": "cs"}


def extras(number: str, country: str) -> Row:
    """Language, roles and loyalty card; by a chance of their own."""
    chance = random.Random(f"extras of {number}")
    roles = chance.choice(
        ["customer", "customer", "customer", "", "customer|installer", "landlord", "press|customer"]
    )
    card = f"NL-{chance.randrange(10**6):06}" if chance.random() < 0.4 else ""
    return [LANGUAGES.get(country, country.lower()), roles, card]


def _one(chance: random.Random, words: str, between: str) -> str:
    return chance.choice(words.split(between)).replace("·", " ")


def _ascii(name: str) -> str:
    """A name as people write it in an email address."""
    plain = name.lower().translate(str.maketrans({"ß": "ss", "ł": "l", "ø": "o", "ı": "i"}))
    letters = unicodedata.normalize("NFD", plain).encode("ascii", "ignore").decode()
    return "".join(c if c.isalpha() else "-" for c in letters).strip("-")


def fair_contacts() -> list[Row]:
    return contacts(random.Random("fair"), "K", 800)


def webshop_contacts(known: list[Row]) -> str:
    """The web shop's export: new people, known people with news, people unchanged, and a fault of every sort."""
    chance = random.Random("web shop")
    rows = [
        [*row, *wishes(row[0]), chance.choice(["", "", "Stammkunde"])] for row in contacts(chance, "W", 260)
    ]
    for i in range(0, len(rows), 4):
        rows[i] = CONTACT_FAULTS[i // 4 % len(CONTACT_FAULTS)](chance, rows[i])
    for i, row in enumerate(chance.sample(known, 40)):  # moved house
        home = ["Neue Straße 7\nHinterhaus", "10117", "Berlin", "DE"]
        rows.append([*row[:7], *home, row[11], *NEWS[i % len(NEWS)], "Umzug"])
    rows += [[*row, "", "", "", ""] for row in chance.sample(known, 40)]
    rows += [rows[1], rows[2], [*rows[3][:4], "Spätere Angabe GmbH", *rows[3][5:]]]
    chance.shuffle(rows)
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows([GERMAN_HEADER, *rows])
    return text.getvalue()


def wishes(number: str) -> Row:
    """Campaigns, lists to be subscribed to and to be unsubscribed from; by a chance of their own."""
    chance = random.Random(f"wishes of {number}")
    return [
        chance.choice(["", "", "", "REFERRAL", "REFERRAL|WEB"]),
        chance.choice(["", "", "CATALOGUE", "CATALOGUE|CALLS"]),
        chance.choice(["", "", "", "", "CALLS", "NEWS", "FAX-2004"]),
    ]


# What else became of those who moved: language, roles, loyalty card, campaigns, subscriptions, opt-outs. A blank cell
# leaves alone, "-" sets to nothing.
NEWS = [
    ["", "", "", "", "", ""],
    ["de", "landlord", "", "", "CALLS", ""],
    ["", "-", "-", "", "", "NEWS|CATALOGUE"],
    ["de", "installer|customer", "NL-700700", "REFERRAL", "CATALOGUE", "CATALOGUE"],
]


CONTACT_FAULTS: list[Fault] = [
    _put(1, "anna@@example.com", "anna example.com", "anna.example.com", "a..b@example.com", "anna@example"),
    _put(5, "ask at the desk", "12", "+49 (0)30 23125-ABC"),
    _put(6, "no mobile", "0"),
    _put(10, "Germany", "XX", "de"),
    _put(11, "31.12.1980", "1980-02-30", "80-12-31", "1880-01-01", "2025"),
    _put(3, ""),
    lambda _, row: ["", "", *row[2:]],
    lambda _, row: [*row, "a note; too much"],
    lambda _, row: row[:9],
    _put(4, "=1+1", "+Plus Energie", "@home", "-50 % Shop"),
    _put(7, "Hof 3\r\nbei Petersen", "c/o Weiß\nHauptstraße 1\n2. Stock"),
    _put(5, "030 23125 117", "0049 30 23125 118", "(030) 23125-119"),
    _put(2, "Jose\u0301", "👩‍🚀 Ada", "Anna\x07"),
    _put(15, "FAIR-2019", "SUMMER"),
    _put(16, "FAX-2004"),
]


def travel_leads() -> bytes:
    """Leads of a fair stand: few columns, no customer number."""
    chance = random.Random("travel leads")
    rows = [["Email", "First name", "Surname", "Country", "Kind", "Interests", "Budget", "Newsletter"]]
    for p in contacts(random.Random("travel"), "T", 150):
        interests = "|".join(chance.sample(["hiking", "cities", "sailing", "trains"], chance.randrange(3)))
        budget = f"{chance.randrange(5, 60) * 100}" if chance.random() < 0.5 else ""
        lists = chance.choice(["", "LAST-MINUTE"])
        rows.append(
            [p[1], p[2], p[3], p[10], chance.choice(["lead", "lead", "customer"]), interests, budget, lists]
        )
    return _csv(rows, ",")


if __name__ == "__main__":
    here = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent
    main(here / "demo.yml" if len(sys.argv) > 1 else here.parent / "reference" / "demo.yml", here)
