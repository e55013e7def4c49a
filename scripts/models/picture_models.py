"""Picture models for scripts/check-models.py: SigLIP 2 and SAM 2 with seeded weights, and their own pre- and post-processing."""

import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import Sam2Config, Sam2Model, Siglip2Tokenizer, SiglipConfig, SiglipModel
from transformers.models.sam2.image_processing_sam2 import Sam2ImageProcessor
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from comparison import export, made, manifest, seeded
from text_models import TEXTS, corpus

SIDE, TOKENS = 64, 64
LABELS = ["a cat", "a page of a book", "Straße", "東京"]


def gemma():
    """SigLIP 2's tokenizer on a vocabulary of its own: bytes for what it lacks, lower case, an end and no beginning."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    learner = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    learner.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(" ", "▁")])
    learner.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    every_byte = [f"<0x{byte:02X}>" for byte in range(256)]
    learner.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=4_000, special_tokens=[*special, *every_byte], max_token_length=12))
    learnt = json.loads(learner.to_str())["model"]
    merges = [tuple(merge) for merge in learnt["merges"]]
    return Siglip2Tokenizer(vocab=learnt["vocab"], merges=merges, padding_side="right", add_bos_token=False, add_eos_token=True)


class Tower(torch.nn.Module):
    def __init__(self, tower):
        super().__init__()
        self.tower = tower

    def forward(self, given):
        return self.tower(given).pooler_output


def check_siglip(folder, opset, worker, report, pictures):
    tokenizer, own = gemma(), made(folder / f"siglip2-{opset}")
    shared = {"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 192}
    config = SiglipConfig(
        text_config=shared | {"vocab_size": len(tokenizer), "max_position_embeddings": TOKENS, "projection_size": 96},
        vision_config=shared | {"image_size": SIDE, "patch_size": 16},
    )
    model = seeded(SiglipModel, config)
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.save(str(own / "tokenizer.json"))
    batch = torch.export.Dim("batch")
    pixels, ids = torch.zeros(2, 3, SIDE, SIDE), torch.zeros(2, TOKENS, dtype=torch.int64)
    export(Tower(model.vision_model), (pixels,), own / "vision_model.onnx", opset, ["pixel_values"], ["pooler_output"], ({0: batch},))
    export(Tower(model.text_model), (ids,), own / "text_model.onnx", opset, ["input_ids"], ["pooler_output"], ({0: batch},))
    with torch.no_grad():
        model.logit_scale.fill_(2.3)
        model.logit_bias.fill_(-1.5)
    files = [("vision", "vision_model.onnx"), ("text", "text_model.onnx"), ("tokenizer", "tokenizer.json")]
    manifest(own, "siglip", "vision.embed", files, [f"side = {SIDE}", "logit_scale = 2.3", "logit_bias = -1.5"])
    processor = SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE}, resample=Image.Resampling.BILINEAR)
    encode = lambda texts: tokenizer(texts, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt")["input_ids"]  # noqa: E731
    for number, text in enumerate(TEXTS):
        with torch.no_grad():
            expected = torch.nn.functional.normalize(model.text_model(encode([text.strip()])).pooler_output[0], dim=0)
        report.vectors(f"{own.name} text {number}", worker.on_text("vision.embed", text, own.name)["vector"], expected)
    for picture in pictures:
        pixels = processor(images=Image.open(picture).convert("RGB"), return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            expected = torch.nn.functional.normalize(model.vision_model(pixels).pooler_output[0], dim=0)
            labels = encode([f"This is a photo of {label}.".lower() for label in LABELS])
            logits = model(input_ids=labels, pixel_values=pixels).logits_per_image[0]
        report.vectors(f"{own.name} {picture.name}", worker.run("vision.embed", picture, own.name)["vector"], expected)
        found = worker.run("vision.embed", picture, own.name, labels=LABELS)
        scores = {label["label"]: label["score"] for label in found["labels"]}
        report.logits(f"{own.name} {picture.name} labels", torch.tensor([scores[label] for label in LABELS]).logit().tolist(), logits)


class SamEncoder(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, image):
        high_0, high_1, embedding = self.model.get_image_embeddings(image)
        return high_0, high_1, embedding


class SamDecoder(torch.nn.Module):
    """As exporters of SAM 2 have it: boxes are two points, and the point that fills up the prompt is added within."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, image_embed, high_res_feats_0, high_res_feats_1, point_coords, point_labels, mask_input, has_mask_input):
        found = self.model(
            image_embeddings=[high_res_feats_0, high_res_feats_1, image_embed], input_points=point_coords[:, None],
            input_labels=point_labels[:, None].to(torch.int32), multimask_output=True,
        )  # fmt: skip
        unused = 0 * (mask_input.sum() + has_mask_input.sum())
        return found.pred_masks[:, 0] + unused, found.iou_scores[:, 0]


def sam2():
    """Small, but for the sizes of picture and masks, which all SAM 2 have. With weights of the usual size all logits would be near 0."""
    stages = {"embed_dim_per_stage": [16, 32, 64, 128], "num_attention_heads_per_stage": [1, 2, 4, 8], "blocks_per_stage": [1, 1, 2, 1]}
    backbone = {"hidden_size": 16, "global_attention_blocks": [3], **stages, "model_type": "sam2_hiera_det_model"}
    width = {"hidden_size": 64}
    config = Sam2Config(
        vision_config={"backbone_config": backbone, "backbone_channel_list": [128, 64, 32, 16], "fpn_hidden_size": 64},
        prompt_encoder_config=width,
        mask_decoder_config=width | {"mlp_dim": 128, "iou_head_hidden_dim": 64},
    )
    model = seeded(Sam2Model, config)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.dim() > 1:
                torch.nn.init.normal_(weights, std=(2 / weights[0].numel()) ** 0.5)
    return model


def check_sam2(folder, opset, worker, report, pictures):
    model, own = sam2(), made(folder / f"sam2-{opset}")
    image = torch.zeros(1, 3, 1024, 1024)
    export(SamEncoder(model), (image,), own / "encoder.onnx", opset, ["image"], ["high_res_feats_0", "high_res_feats_1", "image_embed"], None)
    with torch.no_grad():
        high_0, high_1, embedding = model.get_image_embeddings(image)
    points = torch.export.Dim("points")
    given = (embedding, high_0, high_1, torch.zeros(1, 2, 2), torch.zeros(1, 2), torch.zeros(1, 1, 256, 256), torch.zeros(1))
    names = ["image_embed", "high_res_feats_0", "high_res_feats_1", "point_coords", "point_labels", "mask_input", "has_mask_input"]
    shapes = (None, None, None, {1: points}, {1: points}, None, None)
    export(SamDecoder(model), given, own / "decoder.onnx", opset, names, ["masks", "iou_predictions"], shapes)
    manifest(own, "sam2", "vision.segment", [("encoder", "encoder.onnx"), ("decoder", "decoder.onnx")])
    for picture in pictures:
        size = Image.open(picture).size
        for name, prompt in prompts(*size).items():
            check_mask(f"{own.name} {picture.name} {name}", model, picture, prompt, own.name, worker, report)


def prompts(width, height):
    x, y = width / 2, height / 3
    box = [width * 0.2, height * 0.1, width * 0.7, height * 0.8]
    return {"a point": {"points": [[x, y, 1]]}, "two points": {"points": [[x, y, 1], [3, 5, 0]]}, "a box": {"boxes": [box]}}


def check_mask(name, model, picture, prompt, model_name, worker, report):
    opened = Image.open(picture).convert("RGB")
    scale = np.array([1024 / opened.width, 1024 / opened.height])
    corners = [(row[:2], 2, row[2:], 3) for row in prompt.get("boxes", [])]
    places = [place for row in corners for place in (row[0], row[2])] + [row[:2] for row in prompt.get("points", [])]
    meanings = [meaning for row in corners for meaning in (row[1], row[3])] + [row[2] for row in prompt.get("points", [])]
    pixels = Sam2ImageProcessor()(images=opened, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        found = model(
            pixel_values=pixels, input_points=torch.tensor(np.array(places) * scale, dtype=torch.float32)[None, None],
            input_labels=torch.tensor(meanings, dtype=torch.int32)[None, None], multimask_output=True,
        )  # fmt: skip
        best = found.iou_scores[0, 0].argmax()
        small = found.pred_masks[0, 0, best][None, None]
        logits = torch.nn.functional.interpolate(small, (opened.height, opened.width), mode="bilinear", align_corners=False)[0, 0]
    with tempfile.TemporaryDirectory() as folder:
        worker.run("vision.segment", picture, model_name, output=folder, **prompt)
        mask = torch.tensor(np.array(Image.open(Path(folder) / "mask.png"))) > 127
    clear = logits.abs() > 1e-2
    other = ((mask != (logits > 0)) & clear).sum().item()
    report.line(other == 0, name, f"{other} of {clear.sum().item()} clear pixels differ, {(logits > 0).float().mean().item():.0%} are in the mask")
