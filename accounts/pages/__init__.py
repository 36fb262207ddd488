"""The service's own HTML pages for people who open the link of a mail, and code that the page for pairing uses too."""
