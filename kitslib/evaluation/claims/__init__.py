"""The claim ledger: sentence, measure, number, interval, verdict; and published scores."""
