"""From volumes and a tumour mask to one tensor a patient."""
