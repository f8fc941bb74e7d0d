"""Rows of data files in every format that is read, and their columns. Imports no ML stack."""
