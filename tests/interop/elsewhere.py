"""Networks of other codebases, built anew under the names that their parameters have there."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


def cosines_then_sines(t: Tensor, dim: int) -> Tensor:
    """OpenAI's embedding of a timestep, and DiT's."""
    angles = t[:, None].float() * torch.exp(-math.log(10000) * torch.arange(dim // 2).float() / (dim // 2))
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class OpenAIBlock(nn.Module):
    """A residual block; `way` is up, down or empty."""

    def __init__(self, width_in: int, width_out: int, time: int, scale_shift: bool, way: str = ""):
        super().__init__()
        self.way, self.scale_shift = way, scale_shift
        self.in_layers = nn.Sequential(
            nn.GroupNorm(32, width_in), nn.SiLU(), nn.Conv2d(width_in, width_out, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time, width_out * (2 if scale_shift else 1)))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(32, width_out),
            nn.SiLU(),
            nn.Dropout(0),
            nn.Conv2d(width_out, width_out, 3, padding=1),
        )
        if width_in != width_out:
            self.skip_connection = nn.Conv2d(width_in, width_out, 1)

    def resampled(self, x: Tensor) -> Tensor:
        if self.way == "up":
            return F.interpolate(x, scale_factor=2, mode="nearest")
        return F.avg_pool2d(x, 2) if self.way == "down" else x

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        norm, activation, convolution = self.in_layers
        h = convolution(self.resampled(activation(norm(x))))
        x = self.resampled(x)
        time = self.emb_layers(time)[:, :, None, None]
        norm, *rest = self.out_layers
        if self.scale_shift:
            scale, shift = time.chunk(2, dim=1)
            h = norm(h) * (1 + scale) + shift
        else:
            h = norm(h + time)
        for layer in rest:
            h = layer(h)
        return (self.skip_connection(x) if hasattr(self, "skip_connection") else x) + h


class OpenAIAttention(nn.Module):
    """Attention whose q, k and v stand together for each head, or, in the new order, one after the other."""

    def __init__(self, width: int, heads: int, new_order: bool):
        super().__init__()
        self.heads, self.new_order = heads, new_order
        self.norm = nn.GroupNorm(32, width)
        self.qkv = nn.Conv1d(width, 3 * width, 1)
        self.proj_out = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        b, c, *sizes = x.shape
        x = x.reshape(b, c, -1)
        qkv = self.qkv(self.norm(x))
        each = c // self.heads
        if self.new_order:
            q, k, v = (part.reshape(b * self.heads, each, -1) for part in qkv.chunk(3, dim=1))
        else:
            q, k, v = qkv.reshape(b * self.heads, 3 * each, -1).split(each, dim=1)
        weight = torch.einsum("bct,bcs->bts", q * each**-0.25, k * each**-0.25).softmax(dim=-1)
        a = torch.einsum("bts,bcs->bct", weight, v).reshape(b, c, -1)
        return (x + self.proj_out(a)).reshape(b, c, *sizes)


class OpenAIDown(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.op = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.op(x)


class OpenAIUp(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class OpenAIFirst(nn.Conv2d):
    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return super().forward(x)


class OpenAIUNet(nn.Module):
    """improved-diffusion's, and with more options guided-diffusion's; t is what the diffusion tells it."""

    def __init__(
        self,
        channels: int = 32,
        mult: Sequence[int] = (1, 2),
        blocks: int = 1,
        attention: Sequence[int] = (1,),
        *,
        out: int = 3,
        classes: int | None = None,
        heads: int = 4,
        heads_up: int | None = None,
        each: int | None = None,
        scale_shift: bool = True,
        updown: bool = False,
        new_order: bool = False,
    ):
        super().__init__()
        self.channels = channels
        time = 4 * channels
        self.time_embed = nn.Sequential(nn.Linear(channels, time), nn.SiLU(), nn.Linear(time, time))
        if classes is not None:
            self.label_emb = nn.Embedding(classes, time)

        def attend(width: int, number: int) -> OpenAIAttention:
            return OpenAIAttention(width, number if each is None else width // each, new_order)

        def block(width_in: int, width_out: int, way: str = "") -> OpenAIBlock:
            return OpenAIBlock(width_in, width_out, time, scale_shift, way)

        width, skips = channels, [channels]
        self.input_blocks = nn.ModuleList([nn.ModuleList([OpenAIFirst(3, channels, 3, padding=1)])])
        for level, factor in enumerate(mult):
            for _ in range(blocks):
                layers = [block(width, factor * channels)]
                width = factor * channels
                if level in attention:
                    layers.append(attend(width, heads))
                self.input_blocks.append(nn.ModuleList(layers))
                skips.append(width)
            if level < len(mult) - 1:
                self.input_blocks.append(
                    nn.ModuleList([block(width, width, "down") if updown else OpenAIDown(width)])
                )
                skips.append(width)
        self.middle_block = nn.ModuleList([block(width, width), attend(width, heads), block(width, width)])
        self.output_blocks = nn.ModuleList()
        for level, factor in reversed(list(enumerate(mult))):
            for i in range(blocks + 1):
                layers = [block(width + skips.pop(), factor * channels)]
                width = factor * channels
                if level in attention:
                    layers.append(attend(width, heads_up or heads))
                if level and i == blocks:
                    layers.append(block(width, width, "up") if updown else OpenAIUp(width))
                self.output_blocks.append(nn.ModuleList(layers))
        self.out = nn.Sequential(nn.GroupNorm(32, width), nn.SiLU(), nn.Conv2d(width, out, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        time = self.time_embed(cosines_then_sines(t, self.channels).to(x.dtype))
        if labels is not None:
            time = time + self.label_emb(labels)
        kept = []
        for layers in self.input_blocks:
            for layer in layers:
                x = layer(x, time)
            kept.append(x)
        for layer in self.middle_block:
            x = layer(x, time)
        for layers in self.output_blocks:
            x = torch.cat([x, kept.pop()], dim=1)
            for layer in layers:
                x = layer(x, time)
        return self.out(x)


class PyTorchDDPMBlock(nn.Module):
    def __init__(self, width_in: int, width_out: int, time: int, attends: bool):
        super().__init__()
        self.block1 = nn.Sequential(
            nn.GroupNorm(32, width_in), nn.SiLU(), nn.Conv2d(width_in, width_out, 3, padding=1)
        )
        self.temb_proj = nn.Sequential(nn.SiLU(), nn.Linear(time, width_out))
        self.block2 = nn.Sequential(
            nn.GroupNorm(32, width_out),
            nn.SiLU(),
            nn.Dropout(0),
            nn.Conv2d(width_out, width_out, 3, padding=1),
        )
        same = width_in == width_out
        self.shortcut = nn.Identity() if same else nn.Conv2d(width_in, width_out, 1)
        self.attn = PyTorchDDPMAttention(width_out) if attends else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.block1(x) + self.temb_proj(time)[:, :, None, None]
        return self.attn(self.shortcut(x) + self.block2(h))


class PyTorchDDPMAttention(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.group_norm = nn.GroupNorm(32, width)
        self.proj_q, self.proj_k, self.proj_v, self.proj = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.group_norm(x)
        q, k, v = (one(h).flatten(2).transpose(1, 2) for one in (self.proj_q, self.proj_k, self.proj_v))
        weight = (q @ k.transpose(1, 2) * x.shape[1] ** -0.5).softmax(dim=-1)
        return x + self.proj((weight @ v).transpose(1, 2).reshape(x.shape))


class PyTorchDDPMResampling(nn.Module):
    def __init__(self, width: int, up: bool):
        super().__init__()
        self.up = up
        self.main = nn.Conv2d(width, width, 3, stride=1 if up else 2, padding=1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.main(F.interpolate(x, scale_factor=2) if self.up else x)


class PyTorchDDPMUNet(nn.Module):
    """pytorch-ddpm's, whose timesteps stand in a table of sines and cosines in turn."""

    def __init__(self, steps: int, channels: int, mult: Sequence[int], attention: Sequence[int], blocks: int):
        super().__init__()
        rates = torch.exp(-torch.arange(0, channels, 2) / channels * math.log(10000))
        angles = torch.arange(steps).float()[:, None] * rates
        table = torch.stack([angles.sin(), angles.cos()], dim=-1).view(steps, channels)
        time = 4 * channels
        self.time_embedding = nn.Module()
        self.time_embedding.timembedding = nn.Sequential(
            nn.Embedding.from_pretrained(table), nn.Linear(channels, time), nn.SiLU(), nn.Linear(time, time)
        )
        self.head = nn.Conv2d(3, channels, 3, padding=1)
        self.downblocks, self.upblocks = nn.ModuleList(), nn.ModuleList()
        width, skips = channels, [channels]
        for level, factor in enumerate(mult):
            for _ in range(blocks):
                self.downblocks.append(PyTorchDDPMBlock(width, factor * channels, time, level in attention))
                width = factor * channels
                skips.append(width)
            if level < len(mult) - 1:
                self.downblocks.append(PyTorchDDPMResampling(width, up=False))
                skips.append(width)
        self.middleblocks = nn.ModuleList(PyTorchDDPMBlock(width, width, time, one) for one in (True, False))
        for level, factor in reversed(list(enumerate(mult))):
            for _ in range(blocks + 1):
                width_in = width + skips.pop()
                self.upblocks.append(PyTorchDDPMBlock(width_in, factor * channels, time, level in attention))
                width = factor * channels
            if level:
                self.upblocks.append(PyTorchDDPMResampling(width, up=True))
        self.tail = nn.Sequential(nn.GroupNorm(32, width), nn.SiLU(), nn.Conv2d(width, 3, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        time = self.time_embedding.timembedding(t)
        x = self.head(x)
        kept = [x]
        for layer in self.downblocks:
            x = layer(x, time)
            kept.append(x)
        for layer in self.middleblocks:
            x = layer(x, time)
        for layer in self.upblocks:
            if isinstance(layer, PyTorchDDPMBlock):
                x = torch.cat([x, kept.pop()], dim=1)
            x = layer(x, time)
        return self.tail(x)


class DiTBlock(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        one, two, three, four, five, six = self.adaLN_modulation(condition)[:, None].chunk(6, dim=-1)
        h = F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + two) + one
        b, n, c = x.shape
        q, k, v = self.attn["qkv"](h).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c)
        x = x + three * self.attn["proj"](h)
        h = F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + five) + four
        return x + six * self.mlp["fc2"](F.gelu(self.mlp["fc1"](h), approximate="tanh"))


class DiTNetwork(nn.Module):
    """DiT's and fast-DiT's: latents of four channels, the last row of the table for no class."""

    def __init__(self, size: int, patch: int, width: int, depth: int, heads: int, classes: int):
        super().__init__()
        self.patch = patch
        self.x_embedder = nn.ModuleDict({"proj": nn.Conv2d(4, width, patch, stride=patch)})
        self.t_embedder = nn.ModuleDict(
            {"mlp": nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))}
        )
        self.y_embedder = nn.ModuleDict({"embedding_table": nn.Embedding(classes + 1, width)})
        side = size // patch
        rates = 1 / 10000 ** (np.arange(width // 4) / (width // 4))
        angles = np.arange(side)[:, None] * rates
        line = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)  # [side, width / 2]
        column, row = np.tile(line, (side, 1)), np.repeat(line, side, axis=0)
        places = torch.from_numpy(np.concatenate([column, row], axis=1)).float()[None]
        self.pos_embed = nn.Parameter(places, requires_grad=False)
        self.blocks = nn.ModuleList(DiTBlock(width, heads) for _ in range(depth))
        self.final_layer = nn.ModuleDict(
            {
                "adaLN_modulation": nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width)),
                "linear": nn.Linear(width, patch * patch * 8),
            }
        )

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        h = self.x_embedder["proj"](x).flatten(2).transpose(1, 2) + self.pos_embed
        condition = self.t_embedder["mlp"](cosines_then_sines(t, 256).to(x.dtype))
        condition = condition + self.y_embedder["embedding_table"](labels)
        for block in self.blocks:
            h = block(h, condition)
        shift, scale = self.final_layer["adaLN_modulation"](condition)[:, None].chunk(2, dim=-1)
        h = self.final_layer["linear"](F.layer_norm(h, h.shape[-1:], eps=1e-6) * (1 + scale) + shift)
        side, p = x.shape[-1] // self.patch, self.patch
        return torch.einsum("nhwpqc->nchpwq", h.view(-1, side, side, p, p, 8)).reshape(
            len(x), 8, *x.shape[2:]
        )


HO = {"ch": 32, "mult": (1, 2), "blocks": 1, "attention": (1,)}


def ho_variables(ch: int, mult: Sequence[int], blocks: int, attention: Sequence[int]) -> dict[str, Tensor]:
    """Random variables of the paper's TensorFlow network, float64, as it names and lays them out."""
    generator = torch.Generator().manual_seed(1)
    found: dict[str, Tensor] = {}

    def make(name: str, *shape: int) -> None:
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
        found[f"model/{name}/W"] = 0.3 * drawn / math.prod(shape[:-1]) ** 0.5
        found[f"model/{name}/b"] = 0.1 * torch.randn(shape[-1], generator=generator, dtype=torch.float64)

    def norm(name: str, width: int) -> None:
        found[f"model/{name}/gamma"] = 1 + 0.1 * torch.randn(width, generator=generator, dtype=torch.float64)
        found[f"model/{name}/beta"] = 0.1 * torch.randn(width, generator=generator, dtype=torch.float64)

    def block(name: str, width_in: int, width_out: int) -> None:
        norm(f"{name}/norm1", width_in)
        make(f"{name}/conv1", 3, 3, width_in, width_out)
        make(f"{name}/temb_proj", 4 * ch, width_out)
        norm(f"{name}/norm2", width_out)
        make(f"{name}/conv2", 3, 3, width_out, width_out)
        if width_in != width_out:
            make(f"{name}/nin_shortcut", width_in, width_out)

    def attend(name: str, width: int) -> None:
        norm(f"{name}/norm", width)
        for one in ("q", "k", "v", "proj_out"):
            make(f"{name}/{one}", width, width)

    make("temb/dense0", ch, 4 * ch)
    make("temb/dense1", 4 * ch, 4 * ch)
    make("conv_in", 3, 3, 3, ch)
    width, skips = ch, [ch]
    for level, factor in enumerate(mult):
        for i in range(blocks):
            block(f"down_{level}/block_{i}", width, factor * ch)
            width = factor * ch
            skips.append(width)
            if level in attention:
                attend(f"down_{level}/attn_{i}", width)
        if level < len(mult) - 1:
            make(f"down_{level}/downsample/conv", 3, 3, width, width)
            skips.append(width)
    block("mid/block_1", width, width)
    attend("mid/attn_1", width)
    block("mid/block_2", width, width)
    for level, factor in reversed(list(enumerate(mult))):
        for i in range(blocks + 1):
            block(f"up_{level}/block_{i}", width + skips.pop(), factor * ch)
            width = factor * ch
            if level in attention:
                attend(f"up_{level}/attn_{i}", width)
        if level:
            make(f"up_{level}/upsample/conv", 3, 3, width, width)
    norm("norm_out", width)
    make("conv_out", 3, 3, width, 3)
    return found


def ho_network(
    variables: Mapping[str, Tensor], x: Tensor, t: Tensor, *, ch: int, mult: Sequence[int], blocks: int,
    attention: Sequence[int],
) -> Tensor:  # fmt: skip
    """What the paper's TensorFlow network computes of x [B, C, H, W], as TensorFlow does it."""

    def get(name: str) -> Tensor:
        return variables[f"model/{name}"]

    def same(x: Tensor, name: str, stride: int = 1) -> Tensor:
        w = get(f"{name}/W")
        total = max((-(-x.shape[1] // stride) - 1) * stride + 3 - x.shape[1], 0)
        before = total // 2
        x = F.pad(x, (0, 0, before, total - before, before, total - before))
        out = F.conv2d(x.permute(0, 3, 1, 2), w.permute(3, 2, 0, 1), get(f"{name}/b"), stride=stride)
        return out.permute(0, 2, 3, 1)

    def dense(x: Tensor, name: str) -> Tensor:
        return x @ get(f"{name}/W") + get(f"{name}/b")

    def norm(x: Tensor, name: str) -> Tensor:
        gamma, beta = get(f"{name}/gamma"), get(f"{name}/beta")
        return F.group_norm(x.permute(0, 3, 1, 2), 32, gamma, beta, eps=1e-6).permute(0, 2, 3, 1)

    def block(x: Tensor, name: str) -> Tensor:
        h = same(F.silu(norm(x, f"{name}/norm1")), f"{name}/conv1")
        h = h + dense(F.silu(time), f"{name}/temb_proj")[:, None, None]
        h = same(F.silu(norm(h, f"{name}/norm2")), f"{name}/conv2")
        return h + (dense(x, f"{name}/nin_shortcut") if f"model/{name}/nin_shortcut/W" in variables else x)

    def attend(x: Tensor, name: str) -> Tensor:
        h = norm(x, f"{name}/norm")
        q, k, v = (dense(h, f"{name}/{one}").flatten(1, 2) for one in "qkv")
        weight = (q @ k.transpose(1, 2) * x.shape[-1] ** -0.5).softmax(dim=-1)
        return x + dense((weight @ v).reshape(x.shape), f"{name}/proj_out")

    rates = torch.exp(-math.log(10000) * (torch.arange(ch // 2).float() / (ch // 2 - 1)))
    angles = t.float()[:, None] * rates
    time = dense(torch.cat([angles.sin(), angles.cos()], dim=1).to(x.dtype), "temb/dense0")
    time = dense(F.silu(time), "temb/dense1")
    x = same(x.permute(0, 2, 3, 1), "conv_in")
    kept = [x]
    for level in range(len(mult)):
        for i in range(blocks):
            x = block(x, f"down_{level}/block_{i}")
            x = attend(x, f"down_{level}/attn_{i}") if level in attention else x
            kept.append(x)
        if level < len(mult) - 1:
            x = same(x, f"down_{level}/downsample/conv", 2)
            kept.append(x)
    x = block(attend(block(x, "mid/block_1"), "mid/attn_1"), "mid/block_2")
    for level in reversed(range(len(mult))):
        for i in range(blocks + 1):
            x = block(torch.cat([x, kept.pop()], dim=-1), f"up_{level}/block_{i}")
            x = attend(x, f"up_{level}/attn_{i}") if level in attention else x
        if level:
            x = x.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
            x = same(x, f"up_{level}/upsample/conv")
    return same(F.silu(norm(x, "norm_out")), "conv_out").permute(0, 3, 1, 2)


def tensorflow_checkpoint(variables: Mapping[str, np.ndarray]) -> tuple[bytes, bytes]:
    """The bytes of the files .index and .data-00000-of-00001 as TensorFlow writes them: a table of blocks
    whose keys repeat the beginnings of those before them.
    """

    def varint(value: int) -> bytes:
        low, rest = value & 127, value >> 7
        return bytes([low | 128]) + varint(rest) if rest else bytes([low])

    def field(number: int, value: int | bytes) -> bytes:
        if isinstance(value, int):
            return varint(number << 3) + varint(value)
        return varint(number << 3 | 2) + varint(len(value)) + value

    def block(entries: list[tuple[bytes, bytes]]) -> bytes:
        out, restarts, before = b"", [], b""
        for i, (key, value) in enumerate(entries):
            shared = 0
            if i % 16:
                while shared < min(len(key), len(before)) and key[shared] == before[shared]:
                    shared += 1
            else:
                restarts.append(len(out))
            out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
            before = key
        words = [*(restarts or [0]), len(restarts or [0])]
        return out + b"".join(word.to_bytes(4, "little") for word in words)

    types = {"float32": 1, "int64": 9}
    data, entries = bytearray(), [(b"", field(1, 1) + field(3, field(1, 1)))]
    for name in sorted(variables):
        array = variables[name]
        dims = b"".join(field(2, field(1, size)) for size in array.shape)
        place = field(4, len(data)) if data else b""
        sizes = place + field(5, array.nbytes) + varint(6 << 3 | 5) + bytes(4)
        entries.append((name.encode(), field(1, types[str(array.dtype)]) + field(2, dims) + sizes))
        data += array.tobytes()
    table, handles = b"", []
    for start in range(0, len(entries), 40):
        part = block(entries[start : start + 40])
        handles.append(
            (entries[min(start + 39, len(entries) - 1)][0], varint(len(table)) + varint(len(part)))
        )
        table += part + bytes(5)
    places = []
    for part in (block([]), block(handles)):
        places.append(varint(len(table)) + varint(len(part)))
        table += part + bytes(5)
    footer = b"".join(places).ljust(40, b"\0")
    return table + footer + (0xDB4775248B80FB57).to_bytes(8, "little"), bytes(data)
