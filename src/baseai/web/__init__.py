"""The pages: what a browser is shown, in Portuguese and English, rendered here and alive without a framework."""
