"""The chapters' experiments: networks trained when first asked for, tables made of them, recorded runs."""
