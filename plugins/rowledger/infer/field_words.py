"""What people call the columns that fill a field, in the files of this world."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from rowledger.model import Kind
from rowledger.templates import ImportTemplate, fold_header

# Names of columns in English, German, French and Dutch, beside those that fields and templates have already.
_WORDS = {
    "external_id": "id|contact id|customer id|customer no|customer number|client id|Kunden-Nr|Kundennummer|numéro client|Klantnummer",
    "email": "mail|email address|E-Mail-Adresse|courriel|adresse e-mail|e-mailadres",
    "salutation": "title|Anrede|civilité|aanhef",
    "first_name": "given name|forename|Vorname|prénom|voornaam",
    "middle_name": "second name|zweiter Vorname|tussenvoegsel",
    "last_name": "surname|family name|Nachname|Name|nom|nom de famille|achternaam",
    "company": "organisation|organization|Firma|Unternehmen|entreprise|société|bedrijf",
    "job_title": "position|Beruf|fonction|functie",
    "phone": "telephone|phone number|Telefon|Telefonnummer|téléphone|telefoon|telefoonnummer",
    "mobile": "mobile number|cell|cell phone|Mobil|Handy|Mobilnummer|portable|mobiel",
    "fax": "fax number|Telefax|télécopie",
    "street": "address|address line 1|Straße|Adresse|rue|straat|adres",
    "address_line_2": "address 2|Adresszusatz|complément d'adresse",
    "postal_code": "zip|zip code|postcode|PLZ|Postleitzahl|code postal",
    "city": "town|Ort|Stadt|ville|plaats|stad",
    "region": "state|province|Bundesland|région|provincie",
    "country": "country code|Land|pays",
    "language": "Sprache|langue|taal",
    "birth_date": "date of birth|birthday|born|Geburtsdatum|date de naissance|geboortedatum",
    "lead": "is lead|Interessent|prospect",
    "roles": "role|Rolle|Rollen|rôle|rôles|rol|rollen",
    "origins": "origin|source|campaign|Herkunft|Quelle|Kampagne|origine|campagne|herkomst",
    "subscriptions": "subscription|newsletter|newsletters|lists|Abonnements|abonnements|abonnementen",
    "opt_outs": "opt out|unsubscribed|Abmeldungen|désabonnements|afmeldingen",
    "form_id": "form|contract|contract id|contract no|contract number|Vertragsnummer|Formularnummer|numéro de contrat|contractnummer",
    "date_result": "date|result date|Datum|Ergebnisdatum|date du résultat|resultaatdatum",
    "result_code": "result|code|status|status code|Ergebnis|Ergebniscode|résultat|code résultat|resultaat|resultaatcode",
    "sign_up_date": "signed|signed on|signature date|contract date|Vertragsdatum|Abschlussdatum|date de signature|tekendatum",
    "contact": "customer|contact id|customer number|Kunde|Kundennummer|client|klant|klantnummer",
}


def word(name: str) -> str:
    """How names of columns are compared with words: folded, without accents, signs and blanks."""
    bare = "".join(
        c for c in unicodedata.normalize("NFKD", fold_header(name)) if not unicodedata.combining(c)
    )
    return "".join(c for c in bare if c.isalnum())


def fields_by_word(kind: Kind, others: Sequence[ImportTemplate]) -> dict[str, str]:
    """Names of columns, compared as words, and the field of the kind that each usually fills."""
    found: dict[str, str] = {}
    declared = {target.name for target in kind.fields}
    for target in kind.fields:
        for name in (target.name, target.title, *_WORDS.get(target.name, "").split("|")):
            found.setdefault(word(name), target.name)
    for template in others:
        for column in template.columns:
            if template.kind == kind.name and column.field in declared and column.header:
                for name in (column.header, *column.aliases):
                    found.setdefault(word(name), column.field)
    found.pop("", None)
    return found
