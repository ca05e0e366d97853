"""Pure: values in, values out. Amounts are integer minor units."""
