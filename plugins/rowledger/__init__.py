"""Rowledger: CSV files of other people into PostgreSQL, with a ledger of what became of every record.

The way of the data:
``uploads``     keeps the bytes and hashes them
``batches``     makes a batch of them, and lets one worker at a time at it
``text_in``     brings the bytes into one form of text; ``layouts`` finds the template's columns in it
``records_in``  cuts the file into numbered records, a chunk at a time
``validation``  gives each record a verdict, by the suite that ``suites`` derives from the template
``staging``     holds the accepted ones
``loading``     merges them into their targets, set-based, one module per import kind
``lanes``       cut a load, so that several connections merge at once
``ledger``      has one row per record, and balances
``pipeline``    is all of the above in order: validate, load, close

Beside it: ``dry_run`` does the same and keeps nothing, ``judge`` does so in a process of its own for those who ask through
``judges``; ``mending`` sends rejected records again; ``parked`` records wait for a code or a contract, ``replay``
applies them once it exists, ``giving_up`` waits no longer; ``feeds`` bring files that come by themselves, hold unusual
ones and tell people;
``roll_back`` takes back what a batch changed; ``timers`` give statuses that are due; ``reference`` keeps domains and their codes;
``housekeeping`` removes what need not be kept any more, by ``retention``, ``erasure`` one person;
``contracts`` and ``contacts`` tell what is known of one; ``infer`` proposes a template.
``desk`` and ``cli`` are for people; ``client`` speaks to the desk from elsewhere.
"""
