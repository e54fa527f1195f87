"""Networks: tensors in, tensors out.

=========  ==============================================================
`dropout`  masks that depend on an image's row in its batch
`widths`   how wide a U-Net's layers are, and where dropout is, without torch
`style`    what distinguishes DDPM++, NCSN++ and ADM
`unet`     the U-Nets DDPM++, NCSN++ and ADM
`edm2`     EDM2's U-Net, whose layers preserve magnitudes
`kernels`  for the CPU: convolution; norm, SiLU and dropout (kernels/*.c)
`native`   the U-Net's blocks in these kernels
`lpips`    how unlike two images look: VGG-16's features
`unet2d`   diffusers' U-Net, built by diffusers
`compiled` any of them, compiled by torch.compile
=========  ==============================================================
"""
