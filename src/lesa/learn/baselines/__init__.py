"""The methods that LESA is compared with, one module each; all are called as LESA is."""
