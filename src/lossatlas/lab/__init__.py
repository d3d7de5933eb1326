"""The lab: data, small networks, training, and the comparison of losses with reports."""
