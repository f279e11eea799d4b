"""From evaluation rows to tables, ranks and pages. No torch is needed here."""
