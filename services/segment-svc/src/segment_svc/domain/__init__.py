"""Pure: values in, values out. Time is an argument, epoch milliseconds."""
