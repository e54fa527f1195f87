"""Networks: tensors in, tensors out.

=========  ==============================================================
`dropout`  masks that depend on an image's row in its batch
`unet`     the U-Nets DDPM++, NCSN++ and ADM
`kernels`  for the CPU: convolution; norm, SiLU and dropout (kernels/*.c)
`native`   the U-Net's blocks in these kernels
`widths`   how wide a U-Net's layers are, without torch
`unet2d`   diffusers' U-Net, built by diffusers
=========  ==============================================================
"""
