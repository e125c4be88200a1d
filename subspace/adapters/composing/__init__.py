"""Updates that are not one stored pair: products of several factors, rescalings and rotations of a weight."""
