"""Our own HTML pages for people who open the link of a mail, and what they share with the page for pairing."""
