"""What a run may write down and whose code it executes. Imports no plugin and no ML stack."""
