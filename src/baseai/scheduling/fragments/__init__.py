"""When capacity was free in sum and in no place: the table of intervals."""
