"""Box formats, geometry, coders and priors."""
