"""From the keys and settings of a file to pairs of factors: what formats share."""
