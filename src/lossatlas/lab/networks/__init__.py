"""Small networks to compare losses with, made to be trained from scratch in minutes on two CPU cores.

One file for each kind; what they share is in `backbone`. A network is a module from (B, 3, H, W) images to the outputs
of an objective, built from the `Facts` of the data. Which one belongs to which objective says `lossatlas.lab.registry`.
"""
