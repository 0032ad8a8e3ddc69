"""Documents that customers get: invoices, supplements and credit notes, and drafts of what the tax office gets."""
