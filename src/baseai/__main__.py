"""`python -m baseai` is the command `baseai`."""

from baseai.wiring import main

main()
