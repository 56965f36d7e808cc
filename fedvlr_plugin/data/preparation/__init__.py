"""The seven data sets of Table 1 from their publishers' files. Import the modules; nothing is imported here."""
