"""The claim ledger: sentence, test, number, interval, verdict; and the published numbers beside ours."""
